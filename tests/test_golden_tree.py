"""A small tree whose every advantage is written down, and computed again here by recursion.

`data/golden_tree.json`: two prompts. The first has one tree with leaves 1, 2 | 3, 6 (mean 3,
variance 3.5), the second two trees with families of unequal size. Log-probs are logarithms of
simple fractions, so softmax weights are too: the left family of the first tree weighs 1/4 : 3/4 by
the mean log-prob, and 1/10 : 9/10 by their sum over two dimensions.
"""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from forests import centred, forest, standardised
from torch import Tensor

from treerl.engine.advantage import advantages
from treerl.engine.baseline import Baseline, Depth, LeaveSubtreeOut, ParentGain, Prompt, Siblings
from treerl.engine.tree import Tree
from treerl.engine.weighting import (
    SoftmaxMeanLogProb,
    SoftmaxSumLogProb,
    SoftmaxValue,
    Uniform,
    Weighting,
)

Node = dict[str, Any]

GOLDEN: dict[str, Any] = json.loads(
    (Path(__file__).parent / "data" / "golden_tree.json").read_text()
)
WEIGHTINGS: dict[str, Weighting] = {
    "uniform": Uniform(),
    "softmax-mean": SoftmaxMeanLogProb(),
    "softmax-sum": SoftmaxSumLogProb(),
    "softmax-value": SoftmaxValue(),
}
BASELINES: dict[str, Baseline] = {
    "prompt": Prompt(),
    "depth": Depth(),
    "siblings": Siblings(),
    "parent": ParentGain(),
    "leave-out": LeaveSubtreeOut(),
}


def engine_tree() -> tuple[Tree, list[str], Tensor]:
    """The golden tree as the engine's, the names of its nodes, and the scores of its leaves."""
    level = [
        (f"{p}/{t}", p, tree)
        for p, trees in enumerate(GOLDEN["prompts"])
        for t, tree in enumerate(trees)
    ]
    prompt = torch.tensor([p for _, p, _ in level])
    names = [name for name, _, _ in level]
    log_probs = [0.0] * len(level)
    parents = []
    while any("children" in node for _, _, node in level):
        below = [
            (i, c, child)
            for i, (_, _, node) in enumerate(level)
            for c, child in enumerate(node["children"])
        ]
        parents.append(torch.tensor([i for i, _, _ in below]))
        level = [(f"{level[i][0]}/{c}", level[i][1], child) for i, c, child in below]
        names += [name for name, _, _ in level]
        log_probs += [math.log(node["density"]) for _, _, node in level]
    score = torch.tensor([node["score"] for _, _, node in level], dtype=torch.float64)
    stochastic = torch.arange(len(names)) >= len(prompt)
    log_prob = torch.tensor(log_probs, dtype=torch.float64)
    return forest(parents, prompt, log_prob, stochastic, GOLDEN["dims"]), names, score


def leaves_of(name: str, node: Node, share: float = 1.0) -> list[tuple[str, float, float]]:
    """(name, share, score) of the leaves below a node."""
    if "children" not in node:
        return [(name, share, node["score"])]
    weights = node["weights"]
    return [
        leaf
        for c, (child, weight) in enumerate(zip(node["children"], weights, strict=True))
        for leaf in leaves_of(f"{name}/{c}", child, share * weight)
    ]


def evaluate(node: Node, weighting: str, mean: float, std: float) -> float:
    """The value of a node; leaves its children's weights in the node on the way."""
    if "children" not in node:
        node["value"] = (node["score"] - mean) / std
        return float(node["value"])
    values = [evaluate(child, weighting, mean, std) for child in node["children"]]
    densities = [child["density"] for child in node["children"]]
    raw = {
        "uniform": [1.0] * len(values),
        "softmax-mean": densities,
        "softmax-sum": [density ** GOLDEN["dims"] for density in densities],
        "softmax-value": [math.exp(value) for value in values],
    }[weighting]
    node["weights"] = [part / sum(raw) for part in raw]
    node["value"] = sum(w * v for w, v in zip(node["weights"], values, strict=True))
    return float(node["value"])


def moments(values: list[float]) -> tuple[float, float]:
    mean = sum(values) / len(values)
    return mean, math.sqrt(sum((value - mean) ** 2 for value in values) / len(values))


def everybody(trees: list[Node], p: int) -> dict[str, tuple[Node, Node | None]]:
    """Every node of a prompt with its parent, by name."""
    nodes: dict[str, tuple[Node, Node | None]] = {}

    def visit(name: str, node: Node, parent: Node | None) -> None:
        nodes[name] = (node, parent)
        for c, child in enumerate(node.get("children", [])):
            visit(f"{name}/{c}", child, node)

    for t, tree in enumerate(trees):
        visit(f"{p}/{t}", tree, None)
    return nodes


def by_recursion(weighting: str, baseline: str, normalise: bool = True) -> dict[str, float]:
    """The advantage of every node, by name, from the definitions; else in the reward's unit."""
    advantage: dict[str, float] = {}
    for p, trees in enumerate(json.loads(json.dumps(GOLDEN["prompts"]))):
        raw = [node["score"] for node, _ in everybody(trees, p).values() if "score" in node]
        mean, std = moments(raw)
        std = std if normalise else 1.0
        for tree in trees:
            evaluate(tree, weighting, mean, std)
        nodes = everybody(trees, p)
        leaves = [
            leaf
            for t, tree in enumerate(trees)
            for leaf in leaves_of(f"{p}/{t}", tree, 1 / len(trees))
        ]
        for name, (node, parent) in nodes.items():
            centre, scale = compared(name, node, parent, baseline, nodes, leaves, (mean, std))
            gap = node["value"] - centre
            if normalise:
                gap = gap / scale if scale > 1e-6 else 0.0
            advantage[name] = max(-5.0, min(5.0, gap))
    return advantage


def compared(
    name: str,
    node: Node,
    parent: Node | None,
    baseline: str,
    nodes: dict[str, tuple[Node, Node | None]],
    leaves: list[tuple[str, float, float]],
    of_scores: tuple[float, float],
) -> tuple[float, float]:
    """What a node's value is compared with, and in which unit."""
    z = [(leaf, share, (score - of_scores[0]) / of_scores[1]) for leaf, share, score in leaves]
    if baseline == "prompt":
        return sum(share * score for _, share, score in z), 1.0
    if baseline == "depth":
        return moments(
            [
                other["value"]
                for key, (other, _) in nodes.items()
                if key.count("/") == name.count("/")
            ]
        )
    if baseline == "siblings":
        return moments(
            [child["value"] for child in parent["children"]] if parent else [node["value"]]
        )
    if baseline == "parent":
        return (parent or node)["value"], 1.0
    others = [
        (share, score)
        for leaf, share, score in z
        if leaf != name and not leaf.startswith(name + "/")
    ]
    if not others:
        return node["value"], 1.0
    return sum(share * score for share, score in others) / sum(share for share, _ in others), 1.0


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("baseline", BASELINES)
def test_the_golden_tree_has_the_advantages_that_are_written_down(
    weighting: str, baseline: str
) -> None:
    tree, names, score = engine_tree()
    written = GOLDEN["advantages"][weighting][baseline]
    leaf = standardised(tree, score)
    credit = advantages(tree, leaf, WEIGHTINGS[weighting], BASELINES[baseline])
    assert dict(zip(names, credit.advantage.tolist(), strict=True)) == pytest.approx(
        written, abs=1e-9
    )
    assert by_recursion(weighting, baseline) == pytest.approx(written, abs=1e-9)


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("baseline", BASELINES)
def test_the_golden_tree_in_the_unit_of_its_reward(weighting: str, baseline: str) -> None:
    tree, names, score = engine_tree()
    leaf = centred(tree, score)
    credit = advantages(tree, leaf, WEIGHTINGS[weighting], BASELINES[baseline], normalise=False)
    expected = by_recursion(weighting, baseline, normalise=False)
    assert dict(zip(names, credit.advantage.tolist(), strict=True)) == pytest.approx(
        expected, abs=1e-9
    )


def test_the_first_golden_tree_by_hand() -> None:
    # leaves 1, 2 | 3, 6: mean 3, std √3.5; the left family is worth 1.5, the right one 4.5
    unit = math.sqrt(3.5)
    left, right = "0/0/0", "0/0/1"
    prompt = GOLDEN["advantages"]["uniform"]["prompt"]
    assert prompt[left] * unit == pytest.approx(-1.5) and prompt[right] * unit == pytest.approx(1.5)
    assert [prompt[f"{left}/0"] * unit, prompt[f"{right}/1"] * unit] == pytest.approx([-2, 3])
    out = GOLDEN["advantages"]["uniform"]["leave-out"]
    assert out[left] * unit == pytest.approx(1.5 - 4.5)
    assert out[f"{left}/0"] * unit == pytest.approx(1 - (2 + 3 + 6) / 3)
    assert GOLDEN["advantages"]["uniform"]["siblings"][left] == pytest.approx(-1)
    # by the mean log-prob the left family is worth (1·1 + 3·2)/4, by the sum (1·1 + 9·2)/10
    gain = {
        name: GOLDEN["advantages"][name]["parent"][f"{left}/0"] * unit
        for name in ("softmax-mean", "softmax-sum")
    }
    assert gain == pytest.approx({"softmax-mean": 1 - 7 / 4, "softmax-sum": 1 - 19 / 10})
