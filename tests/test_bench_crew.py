"""Worker processes of a comparison: replies, ends, a kill; none is left behind."""

import os
import sys
import time
from pathlib import Path

import pytest

from treerl.bench import crew
from treerl.errors import Stopped

# answers with its number and the task's, or ends as the task says
WORKER = """
import json, os, signal, sys, time
for line in iter(sys.stdin.readline, ""):
    task = json.loads(line)
    if task.get("kill"):
        os.kill(os.getpid(), signal.SIGKILL)
    if task.get("exit"):
        sys.exit(7)
    time.sleep(task.get("sleep", 0))
    print(json.dumps({"points": [], "task": task["task"], "pid": os.getpid(),
                      "threads": os.environ["OMP_NUM_THREADS"]}), flush=True)
"""
ALONE = {"OMP_NUM_THREADS": "1"}


@pytest.fixture(autouse=True)
def small_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "worker.py"
    file.write_text(WORKER, encoding="utf-8")
    monkeypatch.setattr(crew, "COMMAND", [sys.executable, str(file)])


def never() -> None:
    return


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_every_task_is_answered_once_whatever_the_number_of_workers() -> None:
    for count in (1, 3):
        tasks: list[crew.Task] = [{"task": number} for number in range(7)]
        replies = dict(crew.work(tasks, [ALONE] * count, never))
        assert {place: reply["task"] for place, reply in replies.items()} == {
            number: number for number in range(7)
        }
        pids = {reply["pid"] for reply in replies.values()}
        assert 1 <= len(pids) <= count
        assert {reply["threads"] for reply in replies.values()} == {"1"}
        assert not any(alive(pid) for pid in pids)


def test_a_killed_worker_is_told_and_another_one_goes_on() -> None:
    tasks: list[crew.Task] = [{"task": 0}, {"kill": True}, {"exit": True}, {"task": 3}]
    replies = dict(crew.work(tasks, [ALONE], never))
    assert replies[1] == {"points": [], "error": "its process: ended by SIGKILL", "code": 5}
    assert replies[2]["error"] == "its process: exit code 7"
    assert replies[3]["task"] == 3
    assert replies[3]["pid"] != replies[0]["pid"]


def test_a_stop_ends_workers_in_the_middle_of_a_task() -> None:
    pids: list[int] = []

    def check() -> None:
        if pids:
            raise Stopped(2)

    tasks: list[crew.Task] = [{"task": 0}, {"task": 1, "sleep": 600}]
    began = time.monotonic()
    with pytest.raises(Stopped):
        for _, reply in crew.work(tasks, [ALONE], check):
            pids.append(reply["pid"])
    assert time.monotonic() - began < 300  # rather than the task's 600
    assert pids and not alive(pids[0])
