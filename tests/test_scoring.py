"""Misbehaviours of a reward in process, in a worker, behind HTTP: errors or true scores."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from misbehaving import BEHAVIOURS, GOOD, Misbehaving

from treerl import registry
from treerl.engine.task import Samples, Task
from treerl.errors import InputError, RewardError
from treerl.reward.build import Scoring, build_rewards
from treerl.reward.call import score
from treerl.reward.contract import Reward
from treerl.reward.remote import Remote
from treerl.reward.server import Server
from treerl.reward.worker import Worker

FILE = Path(__file__).parent / "misbehaving.py"
NAME = f"{FILE}:Misbehaving"
IMAGES = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
TIMEOUT = 2.0
PLACES = ("process", "worker", "remote")


def asked(behaviour: str) -> Samples:
    return Samples.of(IMAGES, [behaviour, "b", "c"])


@pytest.fixture(scope="module")
def served() -> Iterator[str]:
    with Server("misbehaving", Misbehaving(), "127.0.0.1", 0, None, TIMEOUT) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.port}"
        server.shutdown()


@pytest.fixture(scope="module")
def places(served: str) -> Iterator[dict[str, Reward]]:
    worker = Worker(NAME, {}, TIMEOUT)
    yield {
        "process": Misbehaving(),
        "worker": worker,
        "remote": Remote.connect("misbehaving", served, TIMEOUT),
    }
    worker.close()


def shared_state() -> tuple[object, ...]:
    return (
        os.getcwd(),
        torch.get_default_dtype(),
        torch.is_grad_enabled(),
        torch.get_num_threads(),
        torch.random.get_rng_state().tolist(),
    )


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("behaviour", BEHAVIOURS)
def test_every_misbehaviour_ends_as_documented(
    behaviour: str,
    place: str,
    places: dict[str, Reward],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("treerl.reward.call.raises", lambda: False)  # as in a run
    before = shared_state()
    began = time.monotonic()
    if BEHAVIOURS[behaviour][1]:
        assert score("m", places[place], asked(behaviour)).tolist() == [GOOD] * 3
    else:
        with pytest.raises(RewardError, match=r"^reward ") as caught:
            score("m", places[place], asked(behaviour))
        assert str(caught.value).isprintable()
    assert time.monotonic() - began <= TIMEOUT + 2
    assert shared_state() == before
    # the next call is as good as new
    assert score("m", places[place], asked("fine")).tolist() == [GOOD] * 3


def test_there_are_31_misbehaviours() -> None:
    assert len(BEHAVIOURS) == 31


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        ("meta", "expected a plain tensor with values, got one on the meta device"),
        ("sparse", "expected a plain tensor with values, got a sparse one"),
        ("quantised", "expected a plain tensor with values, got a quantised one"),
        ("too large for float32", "no finite number .of float32. for sample 2 of 3"),
        ("object", r"expected a tensor \[3\], got object"),
        ("boolean", "expected real numbers, got torch.bool"),
        ("raises", r"ValueError: no such thing\\x1b\[31m \(prompt 'raises'\)"),
        ("exits", "SystemExit: 3"),
        ("moves", "it changed the working directory"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*quantiz.*")
def test_an_error_says_what_was_expected_and_what_came(behaviour: str, words: str) -> None:
    with pytest.raises(RewardError, match=rf"^reward m: {words}"):
        score("m", Misbehaving(), asked(behaviour))


@pytest.mark.slow
@pytest.mark.parametrize("behaviour", ["hangs", "hangs in C", "dies"])
def test_a_worker_that_hangs_or_dies_is_killed_and_started_again(behaviour: str) -> None:
    worker = Worker(NAME, {}, TIMEOUT)
    try:
        began = time.monotonic()
        process = worker._process
        words = r"no answer within 2 s; its worker was killed|its worker died \(exit code 7\)"
        with pytest.raises(RewardError, match=words):
            score("m", worker, asked(behaviour))
        assert time.monotonic() - began <= TIMEOUT + 2
        assert process is not None and gone(process.pid)
        assert score("m", worker, asked("fine")).tolist() == [GOOD] * 3
    finally:
        worker.close()


def gone(pid: int) -> bool:
    """Whether a process has ended, or waits only to be counted."""
    try:
        return "Z" in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True


@pytest.mark.slow
@pytest.mark.parametrize("behaviour", ["fine", "hangs in C"])
def test_a_worker_dies_with_its_run_even_when_it_hangs(behaviour: str) -> None:
    code = (
        "import os, signal, threading, torch\n"
        "from treerl.engine.task import Samples\n"
        "from treerl.reward.worker import Worker\n"
        f"worker = Worker({NAME!r}, {{}}, 60.0)\n"
        f"samples = Samples.of(torch.zeros(1, 3, 8, 8), [{behaviour!r}])\n"
        "threading.Thread(target=worker, args=(samples,), daemon=True).start()\n"
        "print(worker.pid, flush=True)\n"
        "threading.Event().wait(1.0)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    pid = int(done.stdout)
    end = time.monotonic() + 10
    while not gone(pid):
        assert time.monotonic() < end, "the worker outlived its run"
        time.sleep(0.1)


def test_a_server_that_hangs_is_left_at_the_timeout(served: str) -> None:
    remote = Remote.connect("m", served, TIMEOUT)
    began = time.monotonic()
    words = r"^reward m: no answer from http://127.0.0.1:\d+ within 2 s"
    with pytest.raises(RewardError, match=words):
        remote(asked("hangs"))
    assert time.monotonic() - began <= TIMEOUT + 2


def test_nobody_waits_for_a_server_that_is_not_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    words = rf"^reward m: no answer from http://127.0.0.1:{port}: ConnectionRefusedError: "
    with pytest.raises(InputError, match=words):
        Remote.connect("m", f"http://127.0.0.1:{port}", 600.0)


@pytest.mark.parametrize(
    ("target", "words"),
    [("Nothing", "no class 'Nothing'"), ("Broken", "ZeroDivisionError"), ("Exits", "SystemExit")],
)
@pytest.mark.parametrize("executor", ["process", pytest.param("worker", marks=pytest.mark.slow)])
def test_a_reward_that_cannot_be_made_says_why(
    target: str, words: str, executor: str, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(
        "from treerl.reward.contract import Reward\n\n\n"
        "class Broken(Reward):\n"
        "    def __init__(self):\n        1 / 0\n\n"
        "    def __call__(self, samples):\n        return samples.group\n\n\n"
        "class Exits(Broken):\n"
        "    def __init__(self):\n        raise SystemExit(0)\n"
    )
    with pytest.raises(InputError, match=words) as caught:
        build_rewards({f"{tmp_path}/mine.py:{target}": 1.0}, Scoring(executor, TIMEOUT))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("executor", PLACES)
def test_tasks_measures_and_validation_travel_everywhere(executor: str, tmp_path: Path) -> None:
    (tmp_path / "source.png").write_bytes(b"12345")
    media = {"image": tmp_path / "source.png"}
    tasks = [
        Task("a", None, media, {"number": 7}, (100, 50)),
        Task("b", "x", {}, {"number": 9}, (1, 2)),
    ]
    samples = Samples(IMAGES[:2], tuple(tasks), torch.tensor([4, 6]))
    name = f"{FILE}:Telling"
    with Server("t", registry.build("rewards", name, {}), "127.0.0.1", 0, None) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        place = f"http://127.0.0.1:{server.port}" if executor == "remote" else executor
        rewards = build_rewards({name: {"executor": place, "timeout": 20.0}})
        try:
            assert rewards(samples).tolist() == [[4112.0], [6010.0]]
            figures = rewards.measures(samples)
            assert list(figures) == ["right", "count"] and figures["right"].tolist() == [0, 1]
            assert figures["count"].isnan().tolist() == [True, False]
            rewards.validate_tasks(tasks)
            with pytest.raises(InputError, match=r"^rewards\..*: prompt 'c' brings bad luck$"):
                rewards.validate_tasks([*tasks * 200, Task("c", metadata={"number": 13})])
        finally:
            rewards.close()
            server.shutdown()


def test_a_task_that_cannot_be_sent_is_refused_in_one_line(served: str) -> None:
    remote = Remote.connect("m", served, TIMEOUT)
    for metadata in ({"x": object()}, {"x": float("nan")}):
        task = Task("fine", metadata=metadata)
        with pytest.raises(RewardError, match=r"^reward m: cannot be sent: .*not JSON"):
            score("m", remote, Samples(IMAGES[:1], (task,), torch.zeros(1, dtype=torch.int64)))
