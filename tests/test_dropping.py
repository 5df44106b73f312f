"""A tree without a score teaches nothing and stands in nobody's way; a reward that is watched sees hacking."""

import mmap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from test_backbones import Brightness, config, made
from torch import Tensor

from treerl.config.resolve import resolve
from treerl.errors import RewardError
from treerl.reward.contract import Reward
from treerl.run import run as runs
from treerl.run.watch import alarms


class Blind(Reward):
    """Brightness, but no number for one prompt."""

    def __init__(self, prompt: str) -> None:
        self.prompt = prompt

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        found = Brightness("pictures")(images, prompts)
        blind = torch.tensor([prompt == self.prompt for prompt in prompts])
        return torch.where(blind, float("nan"), found)


def iterated(reward: Reward, *sets: str) -> tuple[Any, list[Tensor]]:
    one = made(config("sd35", "scoring.retries=0", *sets))
    one.env.rewards.clear()
    one.env.rewards["brightness"] = reward
    step = one.iterate(0, ["a cat", "a dog"])
    return step, [parameter.detach().clone() for parameter in one.parameters]


def test_a_dropped_tree_changes_nothing_but_its_own_prompt() -> None:
    step, moved = iterated(Blind("a dog"), "scoring.on_bad_reward=drop_tree")
    assert step.metrics["dropped_trees"] == 1 and step.metrics["leaves"] == 8 / 2
    assert bool(torch.isfinite(step.score).all())
    assert all(bool(torch.isfinite(parameter).all()) for parameter in moved)
    whole, _ = iterated(Brightness("pictures"))
    kept = whole.tree.prompt == int(step.tree.prompt[0])
    torch.testing.assert_close(
        step.advantages.advantage, whole.advantages.advantage[kept], equal_nan=True
    )
    assert torch.equal(step.tree.log_prob.nan_to_num(), whole.tree.log_prob[kept].nan_to_num())


def test_stop_and_retry_move_no_weight() -> None:
    for policy in ("stop", "retry"):
        with pytest.raises(RewardError, match=r"^reward brightness: nan for sample"):
            iterated(Blind("a dog"), f"scoring.on_bad_reward={policy}")


def test_when_every_tree_is_bad_the_run_stops() -> None:
    class Broken(Reward):
        def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
            raise ValueError("always")

    with pytest.raises(
        RewardError, match="all 2 trees of the iteration have a leaf without a score"
    ):
        iterated(Broken(), "scoring.on_bad_reward=drop_tree")


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


class Leaky(Brightness):
    """Keeps four mebibytes, or a file, of every call."""

    def __init__(self, what: str) -> None:
        super().__init__("pictures")
        self.what, self.kept = what, []  # type: ignore[var-annotated]

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        if self.what == "memory":
            room = mmap.mmap(-1, 2**22)  # not the allocator's, which may have pages to spare
            room.write(b"x" * 2**22)
            self.kept.append(room)
        else:
            self.kept.append(open("/dev/null", "rb"))
        return super().__call__(images, prompts)


@pytest.mark.parametrize("what", ["memory", "files", "nothing"])
def test_r12_a_reward_that_leaks_is_found_within_twenty_calls(what: str) -> None:
    one = made(config("sd35"))
    reward = Brightness("pictures") if what == "nothing" else Leaky(what)
    one.env.rewards.clear()
    one.env.rewards["mine"] = reward
    env, images = one.env.ask(["a cat"]), torch.rand(4, 3, 8, 8)
    found = []
    for _ in range(20):
        env.score(images, torch.zeros(4, dtype=torch.int64))
        found += one.env.warnings()
    assert len(found) == (what != "nothing")
    if isinstance(reward, Leaky):
        assert found[0].startswith("reward mine keeps ") and found[0].endswith("it leaks")
        for kept in reward.kept:
            kept.close()
