"""The command `treerl`, also as `python -m treerl`: Ctrl-C may come while it is being imported."""

import atexit
import gc
import os
import signal
import sys
from types import FrameType

_IMPORTING = "<frozen importlib._bootstrap>"  # where Python runs an import


def main() -> None:
    """Run the command line."""
    # last of all: Python would look through a million objects of imports again, to free them all
    atexit.register(gc.freeze)
    # a command that was started to ignore Ctrl-C, in the background of a shell, goes on doing so
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)
    try:
        from treerl.cli import main as run
        from treerl.run.leaving import leave_threads

        try:
            run()
        except SystemExit as end:
            leave_threads(end.code)
            raise
    except KeyboardInterrupt:
        sys.exit(130)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Ctrl-C before a run has its own handler.

    In an import, which takes seconds here, an exception may be swallowed by the package that tries
    what is there, or end the process in C++: there is nothing to lose yet, so that it ends at once.
    """
    while frame is not None:
        if frame.f_code.co_filename == _IMPORTING:
            os._exit(130)
        frame = frame.f_back
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
