"""Rewards that fail in what they do beside scoring: their measures, what they leave behind."""

import os
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from test_rewards import IMAGES, SAMPLES, Flaky, Measuring, red
from torch import Tensor

from treerl.engine.task import Samples
from treerl.errors import RewardError, TreerlError, printable
from treerl.reward.call import score
from treerl.reward.contract import Reward
from treerl.reward.rewards import OnBadReward, Rewards

_FAULTS = Path(__file__).parents[1] / "benchmarks" / "reward_faults.py"


def test_failing_measures_are_asked_for_again_and_then_left_out() -> None:
    policies: list[tuple[OnBadReward, int]] = [("stop", 1), ("retry", 3)]
    for policy, times in policies:
        with pytest.raises(RewardError, match="reward m: ConnectionError: busy"):
            Rewards({"m": FlakyFigures(times)}, {}, policy, 2).measures(SAMPLES)
    for policy in ("retry", "drop_tree"):
        assert list(Rewards({"m": FlakyFigures(2)}, {}, policy, 2).measures(SAMPLES)) == ["n"]
    both = Rewards({"m": FlakyFigures(9), "b": Measuring()}, {}, "drop_tree", 2)
    assert list(both.measures(SAMPLES)) == ["right", "odd"]


@dataclass
class FlakyFigures(Flaky):
    """Fails the first `left` times that its figures are asked for."""

    def measures(self, samples: Samples) -> dict[str, Tensor]:
        return {"n": self(samples)}


@dataclass
class Clinging(Reward):
    """Fails when it is closed."""

    error: BaseException
    closed: int = 0

    def __call__(self, samples: Samples) -> Tensor:
        return red(samples)

    def close(self) -> None:
        self.closed += 1
        raise self.error


@pytest.mark.parametrize("error", [ValueError("no\x1b"), SystemExit(0), GeneratorExit()])
def test_a_reward_that_fails_when_closed_is_named_after_all_are_closed(
    error: BaseException,
) -> None:
    first = Clinging(error)
    last = Clinging(error)
    rewards = Rewards({"first": first, "last": last})
    with pytest.raises(RewardError, match=r"^reward first: close: ") as caught:
        rewards.close()
    assert str(caught.value).isprintable()
    with pytest.raises(KeyError, match="graver"), closing(rewards):
        raise KeyError("graver")
    assert first.closed == last.closed == 2


def test_text_from_outside_stays_on_one_printable_line() -> None:
    class Mute:
        def __str__(self) -> str:
            raise ValueError

    assert printable("a\nb\tc  d") == "a b c d"
    assert printable("\x1b[31mred\x00\u202e") == "\\x1b[31mred\\x00\\u202e"
    assert printable("x" * 1000, 10) == "xxxxxxx..."
    assert printable(Mute()) == "(a Mute without a text)"


@dataclass
class Painting(Flaky):
    """Changes the samples at its first call, and may fail at it, too."""

    def __call__(self, samples: Samples) -> Tensor:
        if self.left >= 0:
            samples.images[0].mul_(0.5)
        return super().__call__(samples)


@pytest.mark.parametrize("policy", ["stop", "retry", "drop_tree"])
@pytest.mark.parametrize("failures", [0, 1])
def test_samples_that_a_reward_changed_are_scored_by_nobody(
    policy: OnBadReward, failures: int
) -> None:
    samples = Samples.of(IMAGES.clone(), SAMPLES.prompts)
    with pytest.raises(TreerlError, match=r"^reward m: it changed the samples in") as caught:
        Rewards({"m": Painting(failures)}, {}, policy, 2)(samples)
    assert caught.value.code == RewardError.code
    with torch.inference_mode():  # where torch does not count
        assert score("m", red, Samples.of(IMAGES.clone(), SAMPLES.prompts)).shape == (3,)


def test_a_stream_that_a_reward_closes_is_put_back(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    stream = open(1, "w", closefd=False)
    monkeypatch.setattr(sys, "stdout", stream)

    def closes(samples: Samples) -> Tensor:
        stream.close()
        os.close(1)
        return red(samples)

    with pytest.raises(RewardError, match=r"^reward m: it changed stdout, which every part"):
        score("m", closes, SAMPLES)
    print("heard", flush=True)
    assert capfd.readouterr().out == "heard\n"
    sys.stdout.close()


def test_a_default_device_that_a_reward_sets_is_put_back() -> None:
    def sets(samples: Samples) -> Tensor:
        torch.set_default_device("meta")
        return red(samples)

    with pytest.raises(RewardError, match=r"^reward m: it changed torch's default device"):
        score("m", sets, SAMPLES)
    assert torch.empty(1).device.type == "cpu"


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="knows of no children")
def test_what_a_reward_started_ends_with_the_rewards(tmp_path: Path) -> None:
    started: list[subprocess.Popen[bytes]] = []

    class Starting(Measuring):
        def __call__(self, samples: Samples) -> Tensor:
            words = f"sleep 3600 & echo $! > {tmp_path}/pid; wait"
            started.append(subprocess.Popen(["sh", "-c", words]))
            return red(samples)

    mine = subprocess.Popen(["sleep", "3600"])
    rewards = Rewards({"m": Starting()})
    rewards(SAMPLES)
    file = tmp_path / "pid"
    while not (file.exists() and file.read_text()):
        time.sleep(0.01)
    rewards.close()
    assert started[0].wait(10) == -9 and mine.poll() is None
    state = Path(f"/proc/{file.read_text().strip()}/stat")
    end = time.monotonic() + 10
    while state.exists() and state.read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < end, "a child of its child lives on"
        time.sleep(0.01)
    mine.kill()
    mine.wait()


_LEAVING = """
import atexit, concurrent.futures, sys, threading, time
from treerl.run.leaving import leave_threads
atexit.register(print, "bye")
pool = concurrent.futures.ThreadPoolExecutor(1)
pool.submit(int).result()
if sys.argv[1] == "stuck":
    threading.Thread(target=time.sleep, args=(3600,), name="mine\\n").start()
leave_threads(6, patience=1)
sys.exit(6)
"""


def test_a_thread_that_never_ends_does_not_keep_the_process() -> None:
    for word, out, said in (("idle", "bye\n", ""), ("stuck", "", r"thread 'mine\n'")):
        done = subprocess.run(
            [sys.executable, "-c", _LEAVING, word],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stdout) == (6, out) and said in done.stderr
        assert bool(done.stderr) == bool(said)


@pytest.mark.slow
def test_a_run_whose_reward_leaves_a_process_is_done_all_the_same() -> None:
    tried = [sys.executable, str(_FAULTS), "--only", "child process"]
    done = subprocess.run(tried, capture_output=True, text=True, timeout=200, check=False)
    assert done.stdout.endswith("\n1 of 1\n"), done.stdout + done.stderr
