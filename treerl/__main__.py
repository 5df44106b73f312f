"""The command `treerl`, also as `python -m treerl`: Ctrl-C may come while it is being imported."""

import atexit
import gc
import signal
import sys

from treerl.reward.interrupt import ctrl_c


def main() -> None:
    """Run the command line."""
    # last of all: Python would look through a million objects of imports again, to free them all
    atexit.register(gc.freeze)
    # a command that was started to ignore Ctrl-C, in the background of a shell, goes on doing so
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, ctrl_c)
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


if __name__ == "__main__":
    main()
