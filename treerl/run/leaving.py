"""The end of a process that threads of somebody else's would keep alive."""

import os
import sys
import threading
import time

_GRACE = 1.0  # seconds until such threads are spoken of
_PATIENCE = 30.0  # further seconds for them once all else is done: one may still send something


def leave_threads(code: object, patience: float = _PATIENCE) -> None:
    """End with `code` after `patience` seconds at the latest.

    By itself the interpreter waits for every thread that is no daemon's, without end. Those that
    end, or are ended by what it does at its exit, are waited for.
    """
    if _others():
        watch = threading.Thread(target=_watch, args=(code, patience), daemon=True)
        watch.start()


def _watch(code: object, patience: float) -> None:
    time.sleep(_GRACE)
    names = [thread.name for thread in _others()]
    if not names:
        return
    shown = ", ".join(map(ascii, names))
    print(f"treerl: waits {patience:.0f} s at most for thread {shown}", file=sys.stderr)
    sys.stderr.flush()
    time.sleep(patience)
    os._exit(code if isinstance(code, int) else 0 if code is None else 1)


def _others() -> list[threading.Thread]:
    """The threads that the interpreter waits for when it ends."""
    main = threading.main_thread()
    return [thread for thread in threading.enumerate() if thread is not main and not thread.daemon]
