"""A first signal is looked at where nothing is half done; a second one does not wait for that."""

import os
import signal
import time

import pytest

from treerl.errors import Stopped
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
