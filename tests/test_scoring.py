"""24 misbehaviours of a reward in process, in a worker and behind HTTP: an error or true scores, nothing made up."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from misbehaving import BEHAVIOURS, GOOD, Misbehaving
from torch import Tensor

from treerl.config.resolve import resolve
from treerl.errors import InputError, RewardError
from treerl.reward.build import scorers
from treerl.reward.contract import Reward, score
from treerl.reward.failures import Policy
from treerl.reward.frames import OverFrames
from treerl.reward.remote import Remote
from treerl.reward.server import Server
from treerl.reward.worker import Worker

NAME = f"{Path(__file__).parent / 'misbehaving.py'}:Misbehaving"
IMAGES = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
DEADLINE = 2.0
PLACES = ("process", "worker", "remote")


@pytest.fixture(scope="module")
def served() -> Iterator[str]:
    with Server("misbehaving", Misbehaving(), "127.0.0.1", 0, None) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture(scope="module")
def places(served: str) -> Iterator[dict[str, Reward]]:
    worker = Worker(NAME, {}, DEADLINE)
    yield {
        "process": Misbehaving(),
        "worker": worker,
        "remote": Remote("misbehaving", served, DEADLINE),
    }
    worker.close()


def asked(behaviour: str) -> list[str]:
    return [behaviour, "b", "c"]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("behaviour", BEHAVIOURS)
def test_w1_every_misbehaviour_ends_as_documented(
    behaviour: str, place: str, places: dict[str, Reward]
) -> None:
    before = (
        os.getcwd(),
        torch.get_default_dtype(),
        torch.is_grad_enabled(),
        torch.get_num_threads(),
    )
    drawn, began = torch.random.get_rng_state(), time.monotonic()
    if BEHAVIOURS[behaviour][1]:
        assert score("m", places[place], IMAGES, asked(behaviour)).tolist() == [GOOD] * 3
    else:
        with pytest.raises(RewardError, match=r"^reward "):
            score("m", places[place], IMAGES, asked(behaviour))
    assert time.monotonic() - began <= DEADLINE + 2
    assert (
        os.getcwd(),
        torch.get_default_dtype(),
        torch.is_grad_enabled(),
        torch.get_num_threads(),
    ) == before
    assert torch.equal(drawn, torch.random.get_rng_state())
    assert (
        score("m", places[place], IMAGES, asked("fine")).tolist() == [GOOD] * 3
    )  # the next call is as good as new


def test_there_are_24_misbehaviours() -> None:
    assert len(BEHAVIOURS) == 24


@pytest.mark.parametrize("behaviour", ["hangs", "dies"])
def test_a_worker_that_hangs_or_dies_is_killed_and_started_again(behaviour: str) -> None:
    worker = Worker(NAME, {}, DEADLINE)
    try:
        began, child = time.monotonic(), worker._child
        with pytest.raises(
            RewardError,
            match=r"no answer within 2 s; its worker was killed|its worker died \(exit code 7\)",
        ):
            score("m", worker, IMAGES, asked(behaviour))
        assert time.monotonic() - began <= DEADLINE + 2
        assert child is not None and child.poll() is not None  # no orphan
        assert score("m", worker, IMAGES, asked("fine")).tolist() == [GOOD] * 3
    finally:
        worker.close()


def test_a_worker_dies_with_its_run(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\n"
        "from treerl.reward.worker import Worker\n"
        f"worker = Worker({NAME!r}, {{}}, 5.0)\n"
        "print(worker._child.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    pid = int(done.stdout)
    for _ in range(100):
        if (
            not Path(f"/proc/{pid}").exists()
            or "Z" in Path(f"/proc/{pid}/stat").read_text().split()[2]
        ):
            return
        time.sleep(0.1)
    raise AssertionError("the worker outlived its run")


def test_a_server_that_hangs_is_left_at_the_deadline(served: str) -> None:
    remote = Remote("m", served, DEADLINE)
    began = time.monotonic()
    with pytest.raises(
        RewardError, match=r"^reward m: no answer from http://127.0.0.1:\d+ within 2 s"
    ):
        remote(IMAGES, asked("hangs"))
    assert time.monotonic() - began <= DEADLINE + 2


def test_a_worker_that_cannot_load_its_reward_says_why() -> None:
    with pytest.raises(InputError, match="no class 'Nothing'"):
        Worker(NAME.replace("Misbehaving", "Nothing"), {}, DEADLINE)


class Flaky(Reward):
    """Fails the first `times` calls."""

    def __init__(self, times: int) -> None:
        self.left = times

    def __call__(self, images: Tensor, prompts: Any) -> Tensor:
        self.left -= 1
        if self.left >= 0:
            raise ConnectionError("busy")
        return torch.arange(len(images)).float()


def test_retry_asks_again_and_then_stops() -> None:
    assert Policy("retry", 2).rate("m", Flaky(2), IMAGES, asked("x")).tolist() == [0, 1, 2]
    for policy, times in ((Policy("retry", 2), 3), (Policy("stop", 2), 1)):
        with pytest.raises(RewardError, match="busy"):
            policy.rate("m", Flaky(times), IMAGES, asked("x"))


class Picky(Reward):
    """Breaks the whole call when the second picture is in it, and has no number for the third."""

    def __call__(self, images: Tensor, prompts: Any) -> Tensor:
        if "bad" in prompts:
            raise ValueError("bad picture")
        return torch.tensor([float("inf") if prompt == "none" else 1.0 for prompt in prompts])


def test_drop_tree_keeps_the_scores_of_the_others() -> None:
    found = Policy("drop_tree", 0).rate("m", Picky(), IMAGES, ["good", "bad", "none"])
    np.testing.assert_array_equal(found.numpy(), [1.0, np.nan, np.nan])


class Ramp(Reward):
    """Means of the frames."""

    def __call__(self, images: Tensor, prompts: Any) -> Tensor:
        assert images.dim() == 4 and len(prompts) == len(images)
        return images.flatten(1).mean(1)


def test_a_reward_of_pictures_scores_frames_of_videos() -> None:
    videos = torch.arange(9.0).view(1, 9, 1, 1, 1).expand(2, 9, 3, 4, 4) / 8
    assert OverFrames(Ramp(), 3)(videos, ["a", "b"]).tolist() == [0.5, 0.5]
    assert OverFrames(Ramp(), 4, worst=True)(videos, ["a", "b"]).tolist() == [0.0, 0.0]
    assert OverFrames(Ramp(), 100)(videos, ["a", "b"]).tolist() == [0.5, 0.5]
    wan = resolve(
        None, {"backbone.name": "wan", "backbone.model": "miniature"}, ["rewards={jpeg: 1}"]
    )
    assert isinstance(scorers(wan, [])["jpeg"], OverFrames)


@pytest.mark.parametrize(
    ("sets", "match"),
    [
        (["scoring.where=cloud"], r"^scoring.where: expected process, worker or an address"),
        (["scoring.where=http://127.0.0.1:1/path"], r"^reward jpeg: expected an address such as"),
        (
            ["scoring.where=http://me:secret@127.0.0.1:1"],
            r"^reward jpeg: expected no password in an address",
        ),
        (
            ["scoring.options.nix.x=1"],
            r"^scoring.options.nix.x: expected NAME.field of one of the rewards jpeg",
        ),
        (["scoring.options.jpeg.x=1"], r"^scoring.options.jpeg.x: unknown option; jpeg has none"),
    ],
)
def test_bad_places_and_options_are_refused(sets: list[str], match: str) -> None:
    with pytest.raises(InputError, match=match) as caught:
        scorers(resolve(None, {"rewards": {"jpeg": 1.0}}, sets), [])
    assert "secret" not in str(caught.value)
