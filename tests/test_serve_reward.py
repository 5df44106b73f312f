"""The command that serves a reward, as another process sees it."""

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from misbehaving import FILE, GOOD

from treerl.engine.task import Samples, Task
from treerl.reward import wire
from treerl.reward.remote import Remote

IMAGES = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))


@pytest.mark.slow
def test_the_command_serves_a_reward_that_it_can_kill(tmp_path: Path) -> None:
    name = f"{shutil.copy(FILE, tmp_path)}:Misbehaving"
    words = ["serve-reward", name, "--port", "0", "--allow-plugins", "--set", "scoring.timeout=1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "treerl", *words], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert "(scores images)" in line
        remote = Remote.connect("m", line.split(" on ")[1].split()[0], 20.0)
        for behaviour in ("fine", "hangs", "fine"):
            samples = Samples.of(IMAGES, [behaviour, "b"])
            if behaviour == "fine":
                assert remote(samples).tolist() == [GOOD] * 2
            else:
                with pytest.raises(Exception, match="the reward failed"):
                    remote(samples)
    finally:
        process.terminate()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
    end = time.monotonic() + 10
    while running(name):
        assert time.monotonic() < end, "the worker outlived its server"
        time.sleep(0.1)


def running(words: str) -> list[str]:
    """Processes whose command line holds these words."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if words.encode() in (folder / "cmdline").read_bytes():
                found.append(folder.name)
        except OSError:
            continue
    return found


def test_a_task_survives_the_way_to_a_server(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"abc")
    task = Task("ä\n", "no", {"image": tmp_path / "a.png"}, {"n": [1, {"x": None}]}, (8, 16))
    tasks, tensors = wire.tasks_of(wire.question([task, "text"]), tmp_path)
    assert tensors.keys() == {"media.0"} and tasks[1] == Task("text")
    assert tasks[0].media["image"].read_bytes() == b"abc"
    assert tasks[0].media["image"].name == "0.png"
    assert (tasks[0].prompt, tasks[0].negative, tasks[0].size) == ("ä\n", "no", (8, 16))
    assert tasks[0].metadata == task.metadata
