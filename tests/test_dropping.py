"""A tree without a score teaches nothing; a reward that is watched sees hacking."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from forests import complete
from rich.console import Console
from test_backbones import Brightness, config, made
from torch import Tensor

from treerl.config.resolve import resolve
from treerl.engine.advantage import advantages, combine
from treerl.engine.baseline import Prompt
from treerl.engine.task import Samples
from treerl.engine.weighting import Uniform
from treerl.errors import RewardError
from treerl.reward.contract import Reward
from treerl.reward.rewards import Rewards
from treerl.run import run as runs
from treerl.run.watch import alarms


class Blind(Reward):
    """Brightness, but no number for one prompt."""

    def __init__(self, prompt: str) -> None:
        self.prompt = prompt

    def __call__(self, samples: Samples) -> Tensor:
        blind = torch.tensor([prompt == self.prompt for prompt in samples.prompts])
        return torch.where(blind, float("nan"), Brightness()(samples))


def iterated(reward: Reward, *sets: str) -> tuple[Any, list[Tensor]]:
    one = made(config("sd35", "scoring.retries=0", *sets))
    scoring = one.config.scoring
    rewards = Rewards({"brightness": reward}, {}, scoring.on_bad_reward, scoring.retries)
    one = replace(one, env=replace(one.env, rewards=rewards))  # type: ignore[type-var]
    step = one.iterate(0, ["a cat", "a dog"])
    return step, [parameter.detach().clone() for parameter in one.parameters]


def test_a_dropped_tree_changes_nothing_but_its_own_prompt() -> None:
    step, moved = iterated(Blind("a dog"), "scoring.on_bad_reward=drop_tree")
    assert step.metrics["dropped_trees"] == 1 and step.metrics["leaves"] == 8 / 2
    assert bool(torch.isfinite(step.score).all())
    assert all(bool(torch.isfinite(parameter).all()) for parameter in moved)
    whole, _ = iterated(Brightness())
    kept = whole.tree.prompt == int(step.tree.prompt[0])
    torch.testing.assert_close(
        step.advantages.advantage, whole.advantages.advantage[kept], equal_nan=True
    )
    assert torch.equal(step.tree.log_prob.nan_to_num(), whole.tree.log_prob[kept].nan_to_num())


def test_stop_and_retry_move_no_weight() -> None:
    for policy in ("stop", "retry"):
        with pytest.raises(
            RewardError, match=r"^reward brightness: no finite number .* for sample"
        ):
            iterated(Blind("a dog"), f"scoring.on_bad_reward={policy}")


def test_when_every_tree_is_bad_the_run_stops() -> None:
    class Broken(Reward):
        def __call__(self, samples: Samples) -> Tensor:
            raise ValueError("always")

    with pytest.raises(
        RewardError, match="all 2 trees of the iteration have a leaf without a score"
    ):
        iterated(Broken(), "scoring.on_bad_reward=drop_tree")


def test_a_forest_without_some_trees_is_a_forest() -> None:
    tree = complete(prompts=2, branch=2, depth=3, roots=2)
    roots = tree.tree_of()
    assert torch.equal(roots[: tree.sizes[0]], torch.arange(tree.sizes[0]))
    gone = torch.tensor([0])
    rest = tree.without(gone)
    kept = ~torch.isin(roots, gone)
    assert len(rest) == int(kept.sum()) == sum(rest.sizes) and rest.sizes[0] == tree.sizes[0] - 1
    assert torch.equal(rest.key, tree.key[kept]) and torch.equal(rest.step, tree.step[kept])
    inner = rest.parent >= 0
    assert torch.equal(
        rest.key[rest.parent[inner]], tree.key[tree.parent[kept & (tree.parent >= 0)]]
    )
    assert torch.equal(rest.at(rest.leaves).x, tree.at(tree.leaves[kept[tree.leaves]]).x)
    assert len(tree.without(torch.tensor([], dtype=torch.int64))) == len(tree)


def test_a_reward_scaled_by_a_thousand_changes_nothing() -> None:
    tree = complete(prompts=2, branch=2, depth=3, roots=2)
    score = torch.rand(
        len(tree.leaves), 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    weight = torch.tensor([0.8, 0.2], dtype=torch.float64)

    def found(scores: Tensor, apart: bool) -> Tensor:
        leaf = combine(tree, scores, weight, apart, 1e-9)
        return advantages(tree, leaf, Uniform(), Prompt()).advantage

    scaled = score * torch.tensor([1.0, 1000.0], dtype=torch.float64)
    torch.testing.assert_close(
        found(scaled, True), found(score, True), atol=1e-9, rtol=1e-9, equal_nan=True
    )
    assert float((found(scaled, False) - found(score, False)).nan_to_num().abs().max()) > 0.1


def test_an_alarm_needs_a_large_and_certain_fall_while_the_reward_rises() -> None:
    generator = torch.Generator().manual_seed(0)
    was = torch.rand(200, generator=generator)
    rise, noise = torch.full((200,), 0.3), 0.05 * torch.randn(200, generator=generator)
    assert alarms({"w": was}, {"w": was - 0.5 + noise}, rise) != []
    assert "watched reward w fell from" in alarms({"w": was}, {"w": was - 0.5 + noise}, rise)[0]
    assert alarms({"w": was}, {"w": was - 0.01}, rise) == []  # certain, but small
    assert alarms({"w": was}, {"w": was.flip(0)}, rise) == []  # large here and there, but no fall
    assert alarms({"w": was}, {"w": was + 0.5}, rise) == []
    assert (
        alarms({"w": was}, {"w": was - 0.5}, -rise) == []
    )  # nothing was hacked: the run is failing
    assert alarms({"w": was[:19]}, {"w": was[:19] - 1}, rise[:19]) == []  # too few to say
    assert alarms({"w": was[:20]}, {"w": was[:20] - 1}, rise[:20]) != []


def test_a_run_watches_warns_and_tells(tmp_path: Path) -> None:
    small = [
        "train.iterations=1",
        "train.prompts=1",
        "evaluate.prompts=3",
        "evaluate.samples=1",
        "evaluate.every=1",
    ]
    small += [
        "tree.depth=2",
        f"output={tmp_path / 'run'}",
        "scoring.combine=raw",
        "rewards={shapes: 0.0001, jpeg: 1}",
    ]
    console = Console(record=True, width=300)
    runs.run(
        resolve(
            None, {"watch": [f"{Path(__file__).parent / 'test_check_reward.py'}:Good"]}, small, True
        ),
        console,
    )
    text = console.export_text()
    assert (
        "(watched)" in text
        and "WARNING reward jpeg makes 100.0% of the variance: it drowns the others" in text
    )
    manifest = (tmp_path / "run" / "manifest.json").read_text(encoding="utf-8")
    assert '"watched": {' in manifest and "drowns the others" in manifest
    row = (tmp_path / "run" / "metrics.jsonl").read_text(encoding="utf-8")
    assert '"reward_shares"' in row and '"alarms": []' in row


@pytest.mark.parametrize("most", [1, 2, 3])
def test_r14_decoding_halves_its_rows_when_memory_is_short(
    most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = made(config("sd35"))
    step = one.iterate(0, ["a cat", "a dog"])
    state = step.tree.at(step.tree.leaves)
    env = one.env.ask(step.prompts)
    whole, decode, sizes = env.decode(state), one.backbone.decode, []

    def tight(x: Tensor) -> Tensor:
        sizes.append(len(x))
        if len(x) > most:
            raise torch.OutOfMemoryError("no room")
        return decode(x)

    monkeypatch.setattr(one.backbone, "decode", tight)
    torch.testing.assert_close(env.decode(state), whole, atol=1e-5, rtol=0)
    assert sizes[0] == one.config.train.rows and sizes[-1] <= most
    monkeypatch.setattr(one.backbone, "decode", lambda x: tight(torch.cat([x] * 9)))
    with pytest.raises(torch.OutOfMemoryError):
        env.decode(state)
