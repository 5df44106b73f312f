"""A first signal is looked at where nothing is half done; a second one does not wait for that."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import treerl
from treerl.errors import Stopped
from treerl.reward.interrupt import ctrl_c
from treerl.run.signals import interruptible


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_second_signal_ends_the_process_at_once(number: signal.Signals) -> None:
    child = os.fork()
    if child == 0:
        with interruptible():
            os.kill(os.getpid(), number)
            time.sleep(0.1)  # the first one has come, and waits to be looked at
            os.kill(os.getpid(), number)
            time.sleep(60)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -number


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_first_signal_waits_until_it_is_looked_at(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with interruptible() as interrupt:
        interrupt.check()
        os.kill(os.getpid(), number)
        with pytest.raises(Stopped):
            interrupt.check()
    assert signal.getsignal(number) is before


@pytest.mark.slow
@pytest.mark.parametrize("words", [["run"], ["plan"], ["serve-reward", "jpeg", "--port", "0"]])
@pytest.mark.parametrize("seconds", [0.2, 0.5, 1.0, 1.5, 2.0, 3.0])
def test_ctrl_c_while_packages_are_imported_ends_a_command(
    words: list[str], seconds: float, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "treerl", *words]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        time.sleep(seconds)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "Traceback" not in said


def test_ctrl_c_in_an_import_is_lost_to_nobody(tmp_path: Path) -> None:
    """A package that tries whether another one is there takes any exception for a no."""
    (tmp_path / "trying.py").write_text(
        "import os, signal, time\n"
        "try:\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    time.sleep(10)\n"
        "except BaseException:\n"
        "    pass\n"
    )
    code = (
        "import signal, treerl.reward.interrupt as waiting\n"
        "signal.signal(signal.SIGINT, waiting.ctrl_c)\n"
        "import trying\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True)
    assert ended.returncode == 130


@pytest.mark.parametrize("handler", [signal.default_int_handler, ctrl_c])
def test_ctrl_c_in_a_call_is_the_users_and_no_fault_of_the_reward(handler: Any) -> None:
    class Slow(treerl.Reward):
        def __call__(self, samples: treerl.Samples) -> torch.Tensor:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(10)
            raise AssertionError

    samples = treerl.Samples.of(torch.rand(1, 3, 8, 8), ["a"])
    before = signal.signal(signal.SIGINT, handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            treerl.Rewards({"slow": Slow()})(samples)
    finally:
        signal.signal(signal.SIGINT, before)
