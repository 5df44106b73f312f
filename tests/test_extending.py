"""The classes of the extension pages keep their contracts and train, and their commands run."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pages import EXTENDING, OPENINGS, ROOT, checked, commands, files, load, write_files
from torch import Tensor

import treerl
from treerl.check.component import COMPONENTS
from treerl.check.finding import run
from treerl.check.world import STEPS, TASKS, World
from treerl.cli import main
from treerl.engine.branching import Fixed
from treerl.engine.component import Component
from treerl.engine.losses import EdgeLosses

# setting of an algorithm that takes a plug-in of that kind
FIELDS = ("branching", "normaliser", "weighting", "baseline", "selection", "objective")
PLUGINS = [
    pytest.param(page, kind, name, id=name) for page in OPENINGS for kind, name in checked(page)
]
COMPONENT_PLUGINS = [row for row in PLUGINS if row.values[1] in FIELDS]
SMALL = (
    "train.iterations=1",
    "train.prompts_per_iteration=2",
    "train.optimizer_steps=1",
    "evaluate.max_prompts=2",
)
ALGORITHM = treerl.Algorithm(
    branching=Fixed(branching_factor=2, depth=3, start=0),
    objective=treerl.Clipped(clip_range=0.1),
)


def plugin(page: Path, name: str, folder: Path) -> Any:
    """An instance of a page's class, with its default parameters."""
    write_files(page, folder)
    file, _, attribute = name.partition(":")
    return load(folder / file, attribute)()


def algorithm_with(page: Path, kind: str, component: Any) -> treerl.Algorithm:
    """The algorithm that the page's command would run."""
    more = {"previews": page.stem == "previews", kind: component}
    return replace(ALGORITHM, ppo_epochs=2, **more)


def moved(env: World, before: Tensor) -> float:
    """The largest change of a weight."""
    return float((env.weight.detach() - before).abs().max())


def upwards(samples: treerl.Samples) -> Tensor:
    """The sum of a sample's numbers."""
    return samples.images.sum(1)


def train(
    algorithm: treerl.Algorithm, env: World, iterations: int = 4, tasks: tuple[str, ...] = TASKS
) -> list[treerl.Step]:
    start = env.weight.detach().clone()

    @contextmanager
    def reference() -> Iterator[None]:
        now = env.weight.detach().clone()
        env.weight.data.copy_(start)
        yield
        env.weight.data.copy_(now)

    rewards = treerl.Rewards({"upwards": upwards})
    optimizer = torch.optim.SGD([env.weight], lr=0.1)
    trainer = treerl.Trainer(env, rewards, algorithm, optimizer, weight_sets={"start": reference})
    return [trainer.iterate(tasks) for _ in range(iterations)]


def python(folder: Path, *words: str) -> str:
    """What Python prints in that folder, ending well."""
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout}{done.stderr}"
    return done.stdout


def test_every_opening_has_a_class_to_check_and_a_run() -> None:
    assert len(OPENINGS) == 13
    for page in OPENINGS:
        assert files(page), page.name
        if page.stem != "env":  # an environment without diffusers is used from Python
            verbs = [words[0] for words in commands(page)]
            assert "check" in verbs and "run" in verbs, page.name


@pytest.mark.parametrize("page", OPENINGS, ids=lambda page: page.stem)
def test_the_files_of_a_page_are_short(page: Path) -> None:
    for name, code in files(page).items():
        lines = [line for line in code.splitlines() if line.strip()]
        most = 60 if name in ("critic.py", "tokens.py") else 42
        assert len(lines) <= most, f"{name}: {len(lines)} lines"


@pytest.mark.parametrize(("page", "kind", "name"), PLUGINS)
def test_every_class_keeps_its_contract(page: Path, kind: str, name: str, tmp_path: Path) -> None:
    instance = plugin(page, name, tmp_path)
    checks = COMPONENTS.get(f"{kind}s", ())  # rewards have a check of their own, tried below
    wrong = [finding.lines() for finding in run(checks, instance) if finding.wrong]
    assert not wrong


@pytest.mark.parametrize(("page", "kind", "name"), COMPONENT_PLUGINS)
def test_every_component_trains(page: Path, kind: str, name: str, tmp_path: Path) -> None:
    component = plugin(page, name, tmp_path)
    env = World()
    before = env.weight.detach().clone()
    steps = train(algorithm_with(page, kind, component), env)
    assert all(torch.isfinite(torch.tensor(step.metrics["loss"])) for step in steps)
    assert all(step.metrics["ratio_deviation"] == pytest.approx(0, abs=1e-5) for step in steps)
    assert moved(env, before) > 1e-3


@pytest.mark.parametrize(("page", "kind", "name"), COMPONENT_PLUGINS)
def test_what_a_component_remembers_is_taken_up_again(
    page: Path, kind: str, name: str, tmp_path: Path
) -> None:
    component = plugin(page, name, tmp_path)
    remembers = type(component).observe is not Component.observe
    fresh = {key: value.clone() for key, value in component.state().items()}
    train(algorithm_with(page, kind, component), World(), iterations=2)
    state = component.state()
    assert bool(state) == remembers
    if not remembers:
        return
    assert any(key not in fresh or not torch.equal(fresh[key], state[key]) for key in state)
    again = type(component)()
    again.restore(state)
    assert all(torch.equal(state[key], value) for key, value in again.state().items())


def test_a_kernel_of_a_page_trains(tmp_path: Path) -> None:
    kernel = plugin(EXTENDING / "kernel.md", "fading.py:Fading", tmp_path)
    env = World(kernel.coefficients(treerl.Flow.linear(STEPS)))
    before = env.weight.detach().clone()
    steps = train(ALGORITHM, env)
    assert moved(env, before) > 1e-3
    assert steps[0].metrics["ratio_deviation"] == 0


def test_the_ratio_of_the_objective_page_is_that_of_the_paper(tmp_path: Path) -> None:
    # GRPO-Guard, arXiv 2510.22319 Eq. 8: log ratio = s (log p - log p_old + d² / (2 s²))
    objective = plugin(EXTENDING / "objective.md", "guard.py:RatioNorm", tmp_path)
    env = World()
    tree = train(ALGORITHM, env, iterations=1)[0].tree
    children = tree.edges
    state = tree.at(tree.parent[children])
    with torch.no_grad():
        env.weight += 0.1
        policy = env.policy(state, stochastic=True)
    advantage = torch.ones(len(tree), dtype=torch.float64)
    losses = EdgeLosses(env, tree, advantage, ALGORITHM, 64, lambda _: nullcontext())
    edges = losses._edges(children, None)
    gap = policy.mean - edges.rollout(policy).mean
    bias = gap.square().mean(1) / (2 * policy.std.square())
    expected = (policy.std * (policy.log_prob(edges.x) - edges.log_prob + bias)).exp()
    assert float((expected - 1).abs().max()) > 1e-2
    # the distance of two means divided by s²: a rounding of the means counts some times
    ratio = objective(policy, edges).ratio.double()
    torch.testing.assert_close(ratio, expected.double(), atol=1e-6, rtol=1e-6)


def test_trees_follow_the_prompts(tmp_path: Path) -> None:
    branching = plugin(EXTENDING / "trees-per-prompt.md", "effort.py:Effort", tmp_path)
    tasks = ("a", "b", "c")
    last = train(replace(ALGORITHM, branching=branching), World(), 2, tasks)[-1]
    leaves = torch.bincount(last.tree.task[last.tree.leaves], minlength=3).tolist()
    assert set(leaves) == {4, 16}


def test_the_window_moves_to_where_siblings_differed(tmp_path: Path) -> None:
    branching = plugin(EXTENDING / "branching.md", "contrast.py:Contrast", tmp_path)
    branching.restore({"contrast": torch.tensor([0.1, 0.1, 0.1, 2.0, 2.0, 0.1])})
    chances = [chance for chance, _ in branching.distribution(STEPS, 5)]
    assert max(chances) == chances[3] > 0.4


@pytest.mark.parametrize(
    "name", ["blue.py:Blue", "colour.py:Colour", "unlike.py:Unlike"], ids=lambda name: name[:6]
)
def test_a_reward_of_a_page_scores(name: str, tmp_path: Path) -> None:
    reward = plugin(EXTENDING / "reward.md", name, tmp_path)
    tasks = [treerl.Task("a sea", metadata={"colour": "green"}), treerl.Task("a sky")]
    images = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    samples = treerl.Samples.of(images, [tasks[0], tasks[0], tasks[1], tasks[1]])
    rewards = treerl.Rewards({"mine": reward})
    rewards.validate_tasks(tasks)
    scores = rewards(samples)
    assert scores.shape == (4, 1) and float(scores.std()) > 0


def test_a_reward_refuses_a_task_before_anything_is_loaded(tmp_path: Path) -> None:
    reward = plugin(EXTENDING / "reward.md", "colour.py:Colour", tmp_path)
    with pytest.raises(treerl.InputError, match="expected a colour of red, green, blue"):
        reward.validate_tasks([treerl.Task("a sea", metadata={"colour": "mauve"})])


def test_the_environment_page_shows_the_example_as_it_is() -> None:
    example = (ROOT / "examples" / "plane_flow.py").read_text(encoding="utf-8")
    code = files(EXTENDING / "env.md")["plane_flow.py"]
    assert code == "# plane_flow.py\n" + example


@pytest.mark.slow
def test_discrete_states_learn(tmp_path: Path) -> None:
    write_files(EXTENDING / "env.md", tmp_path)
    rewards = [float(line.split()[-1]) for line in python(tmp_path, "tokens.py").splitlines()]
    assert rewards[-1] > 0.99


@pytest.mark.slow
@pytest.mark.parametrize("page", OPENINGS, ids=lambda page: page.stem)
def test_every_command_of_a_page_does_what_it_says(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_files(page, tmp_path)
    monkeypatch.chdir(tmp_path)
    for number, words in enumerate(commands(page)):
        more: list[str] = []
        if words[0] == "run":
            more = ["--output", f"run{number}"]
            for setting in SMALL:
                more += ["--set", setting]
        with pytest.raises(
            SystemExit
        ) as end:  # in this process: importing takes longer than running
            main([*words, *more])
        assert end.value.code in (0, None), words
        if words[0] == "run":
            rows = (tmp_path / f"run{number}" / "metrics.jsonl").read_text(encoding="utf-8")
            assert len(rows.splitlines()) == 1
