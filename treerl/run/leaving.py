"""The end of a process that threads of somebody else's would keep alive."""

import os
import sys
import threading
import time

_PATIENCE = 2.0  # seconds for such threads once all else is done


def leave_threads(code: object) -> None:
    """End with `code` soon, though the interpreter waits for every thread that is not a daemon's.

    Those that end, or are ended by what the interpreter does at its exit, are waited for.
    """
    if _others():
        watch = threading.Thread(target=_watch, args=(code,), daemon=True)
        watch.start()


def _watch(code: object) -> None:
    time.sleep(_PATIENCE)
    names = [thread.name for thread in _others()]
    if not names:
        return
    print(f"treerl: not waited for: thread {', '.join(map(ascii, names))}", file=sys.stderr)
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 0 if code is None else 1)


def _others() -> list[threading.Thread]:
    """The threads that the interpreter waits for when it ends."""
    main = threading.main_thread()
    return [thread for thread in threading.enumerate() if thread is not main and not thread.daemon]
