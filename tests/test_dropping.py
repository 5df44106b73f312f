"""A tree without a score teaches nothing; a reward that is watched sees hacking."""

from pathlib import Path

import pytest
import torch
from rich.console import Console
from test_backbones import Brightness, config, session_of, trained
from torch import Tensor

from treerl.backbone.contract import Condition
from treerl.config.resolve import resolve
from treerl.engine.step import Step
from treerl.engine.task import Samples
from treerl.errors import RewardError
from treerl.report import page
from treerl.reward.contract import Reward
from treerl.run.evaluate import Figures
from treerl.run.run import alarms_between
from treerl.run.start import start
from treerl.run.watch import alarms


class Blind(Reward):
    """Brightness, but no number for one prompt."""

    def __init__(self, prompt: str) -> None:
        self.prompt = prompt

    def __call__(self, samples: Samples) -> Tensor:
        blind = torch.tensor([prompt == self.prompt for prompt in samples.prompts])
        return torch.where(blind, float("nan"), Brightness("images")(samples))


def iterated(reward: Reward, *sets: str) -> tuple[Step, list[Tensor]]:
    session = session_of(config("sd35", "scoring.retries=0", *sets), reward)
    step = session.trainer.iterate(["a cat", "a dog"])
    return step, [parameter.detach().clone() for parameter in trained(session)]


def test_a_dropped_tree_changes_nothing_but_its_own_prompt() -> None:
    step, moved = iterated(Blind("a dog"), "scoring.on_bad_reward=drop_tree")
    assert step.metrics["dropped_trees"] == 1 and step.metrics["leaves"] == 8 / 2
    assert bool(torch.isfinite(step.scores[step.tree.leaves]).all())
    assert all(bool(torch.isfinite(parameter).all()) for parameter in moved)
    whole, _ = iterated(Brightness("images"))
    kept = whole.tree.task == int(step.tree.task[0])
    torch.testing.assert_close(
        step.advantages.advantage, whole.advantages.advantage[kept], equal_nan=True
    )
    assert torch.equal(step.tree.log_prob.nan_to_num(), whole.tree.log_prob[kept].nan_to_num())


@pytest.mark.parametrize("policy", ["stop", "retry"])
def test_stop_and_retry_move_no_weight(policy: str) -> None:
    session = session_of(
        config("sd35", "scoring.retries=0", f"scoring.on_bad_reward={policy}"), Blind("a dog")
    )
    before = [parameter.detach().clone() for parameter in trained(session)]
    with pytest.raises(RewardError, match=r"^reward brightness: no finite number .* for sample"):
        session.trainer.iterate(["a cat", "a dog"])
    for parameter, kept in zip(trained(session), before, strict=True):
        assert torch.equal(parameter, kept)


def test_when_every_tree_is_bad_the_run_stops() -> None:
    class Broken(Reward):
        def __call__(self, samples: Samples) -> Tensor:
            raise ValueError("always")

    words = "all 2 trees of the iteration have a sample without a score"
    with pytest.raises(RewardError, match=words):
        iterated(Broken(), "scoring.on_bad_reward=drop_tree")


def test_an_alarm_needs_a_large_and_certain_fall_while_the_reward_rises() -> None:
    generator = torch.Generator().manual_seed(0)
    was = torch.rand(200, generator=generator)
    rise = torch.full((200,), 0.3)
    noise = 0.05 * torch.randn(200, generator=generator)
    assert alarms({"w": was}, {"w": was - 0.5 + noise}, rise) != []
    assert "watched reward w fell from" in alarms({"w": was}, {"w": was - 0.5 + noise}, rise)[0]
    assert alarms({"w": was}, {"w": was - 0.01}, rise) == []  # certain, but small
    assert alarms({"w": was}, {"w": was.flip(0)}, rise) == []  # large here and there, but no fall
    assert alarms({"w": was}, {"w": was + 0.5}, rise) == []
    # nothing was hacked: the run is failing
    assert alarms({"w": was}, {"w": was - 0.5}, -rise) == []
    lost = torch.full_like(rise, torch.nan)
    assert alarms({"w": was}, {"w": was - 0.5}, lost) == []  # nothing is known of the rise
    some = torch.where(torch.arange(len(was)) % 3 == 0, torch.nan, was - 0.5 + noise)
    assert alarms({"w": was}, {"w": some}, rise) != []
    assert alarms({"w": was[:19]}, {"w": was[:19] - 1}, rise[:19]) == []  # too few to say
    assert alarms({"w": was[:20]}, {"w": was[:20] - 1}, rise[:20]) != []


def test_a_watched_reward_that_falls_while_the_trained_one_rises_is_the_alarm() -> None:
    generator = torch.Generator().manual_seed(0)
    rise = torch.linspace(0.5, 1.5, 40, dtype=torch.float64)
    was = torch.randn(40, generator=generator, dtype=torch.float64)

    def figures(total: Tensor, watched: Tensor) -> Figures:
        return Figures(total[:, None], total, {}, {"w": watched}, {})

    low = figures(torch.zeros_like(rise), was)
    high = figures(rise, was - 3)
    assert len(alarms_between(low, high)) == 1
    assert alarms_between(high, low) == []
    assert alarms_between(figures(rise, was), figures(torch.zeros_like(rise), was - 3)) == []


def test_a_run_watches_warns_and_tells(tmp_path: Path) -> None:
    small = [
        "recipe=treegrpo",
        "train.iterations=1",
        "train.prompts_per_iteration=1",
        "evaluate.max_prompts=3",
        "evaluate.samples_per_prompt=1",
        "evaluate.every=1",
        "tree.branching.depth=2",
        "advantage.normaliser=raw",
        "rewards={shapes: 0.0001, jpeg: 1}",
        f"output={tmp_path / 'run'}",
    ]
    flags = {"watch": [f"{Path(__file__).parent / 'test_check_reward.py'}:Good"]}
    console = Console(record=True, width=300)
    start(resolve(None, flags, small, True), console, page.write)
    text = console.export_text()
    warning = "reward jpeg makes 100.0% of the variance: it drowns the others"
    assert "(watched)" in text and f"ALARM iteration 1: {warning}" in text
    manifest = (tmp_path / "run" / "manifest.json").read_text(encoding="utf-8")
    assert '"watched": {' in manifest and "drowns the others" in manifest
    row = (tmp_path / "run" / "metrics.jsonl").read_text(encoding="utf-8")
    assert '"reward_shares"' in row and warning in row and '"heldout"' in row


@pytest.mark.parametrize("most", [1, 2, 3])
def test_decoding_halves_its_rows_when_memory_is_short(
    most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = session_of(config("sd35"))
    step = session.trainer.iterate(["a cat", "a dog"])
    state = step.tree.at(step.tree.leaves)
    env = session.env.with_tasks(step.tasks)
    whole = env.samples(state).images
    decode = session.backbone.decode
    sizes = []

    def tight(x: Tensor, condition: Condition) -> Tensor:
        sizes.append(len(x))
        if len(x) > most:
            raise torch.OutOfMemoryError("no room")
        return decode(x, condition)

    def hopeless(x: Tensor, condition: Condition) -> Tensor:
        return tight(torch.cat([x] * 9), condition)

    monkeypatch.setattr(session.backbone, "decode", tight)
    torch.testing.assert_close(env.samples(state).images, whole, atol=1e-5, rtol=0)
    assert sizes[0] == session.config.train.micro_batch_size and sizes[-1] <= most
    monkeypatch.setattr(session.backbone, "decode", hopeless)
    with pytest.raises(torch.OutOfMemoryError):
        env.samples(state)
