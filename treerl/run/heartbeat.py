"""Signs of life: every process of a run gives them, watches the next one, and names who is gone."""

import atexit
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from threading import Event, Thread

from torch.distributed.distributed_c10d import Store

from treerl.errors import PeerError
from treerl.run.last_words import LastWords, find, leave

KEYS = "treerl/keys"  # of the store: the prefix of the keys through which the processes talk
SAVING = "save"  # the phase in which a process is given its time
_BEAT = 1.0  # seconds between two signs
_GRACE = 3.0  # seconds in which a process whose run is lost can end by itself


@dataclass(frozen=True)
class Sign:
    """What a process says of itself, every second."""

    rank: int
    number: int  # counts the signs: clocks of two machines differ
    phase: str
    seconds: float  # for which it has been in this phase
    host: str
    pid: int

    def text(self) -> str:
        return f"rank {self.rank} in phase {self.phase} for {self.seconds:.0f} s"


class Heartbeat:
    """Gives the signs of one process and watches those of the next, in a thread of its own.

    A process that stands still for `patience` seconds, or says that it failed, ends the run: the
    others mostly wait for it inside a collective call that they cannot leave, so after a grace
    they end here, with code 5.
    """

    def __init__(
        self,
        store: Store,
        rank: int,
        size: int,
        timeout: float,
        patience: float,
        doing: Callable[[], Sign],
    ) -> None:
        # a client of its own: the other one may be waiting
        self._store: Store = store.clone()  # type: ignore[attr-defined]
        self._rank = rank
        self._watched = (rank + 1) % size
        self._timeout = timeout
        self._patience = patience
        self._doing = doing
        self._over = Event()
        self._still = Event()
        Thread(target=self._live, name="treerl heartbeat", daemon=True).start()
        atexit.register(self.end)

    def end(self) -> None:
        """This process parts from the others by itself."""
        self._over.set()
        self._still.wait(_GRACE)

    def _live(self) -> None:
        self._beat()
        self._still.set()
        # A thread that has called torch must neither end nor wake while Python does: what torch
        # keeps for each thread then asks for Python, and the process aborts with a code of its own.
        Event().wait()

    def _beat(self) -> None:
        last: Sign | None = None
        moved = time.monotonic()
        try:
            while not self._over.wait(_BEAT):
                give(self._store, self._doing())
                sign = read(self._store, self._watched)
                if sign != last or sign is None:  # None: it is not here yet, which has a limit
                    moved = time.monotonic()
                    last = sign
                elif time.monotonic() - moved > self._patience:
                    self._end_still(sign)
                words = find(self._store)
                if words is not None and not words.stopped:
                    self._leave(words.text)
        except (RuntimeError, ValueError):  # the store is gone, and whoever held it
            self._leave("the launcher, or the process that held the keys of all, ended")

    def _end_still(self, sign: Sign) -> None:
        """Say who stands still, at once; on this host, end it, as nothing else will."""
        quiet = f"no sign of life for {self._patience:.0f} s"
        text = f"rank {sign.rank}: {quiet}, in phase {sign.phase}"
        leave(self._store, LastWords.of(PeerError(text), sign.rank))
        words = find(self._store)
        if words is not None and words.text == text:  # nobody had said another thing before
            self._say(text)
        if sign.host == socket.gethostname():
            with suppress(ProcessLookupError, PermissionError):
                os.kill(sign.pid, signal.SIGKILL)

    def _leave(self, text: str) -> None:
        """End this process, unless it does so by itself; saving has until the timeout."""
        limit = time.monotonic() + self._timeout
        while not self._over.wait(_GRACE):
            if self._doing().phase != SAVING or time.monotonic() > limit:
                self._end(text)

    def _say(self, text: str) -> None:
        if first_to_say(self._store, text):
            print(f"treerl: {text}", file=sys.stderr, flush=True)

    def _end(self, text: str) -> None:
        self._say(text)
        os._exit(PeerError.code)


def sign_of(rank: int, number: int, phase: str, since: float) -> Sign:
    """The sign of this process."""
    seconds = time.monotonic() - since
    return Sign(rank, number, phase, seconds, socket.gethostname(), os.getpid())


def give(store: Store, sign: Sign) -> None:
    """Let the others see it."""
    store.set(_key(sign.rank), json.dumps(asdict(sign)))


def read(store: Store, rank: int) -> Sign | None:
    """The last sign of a process, if it gave any."""
    key = _key(rank)
    if not store.check([key]):
        return None
    return Sign(**json.loads(store.get(key)))


def standing_still(store: Store, ranks: Iterable[int], seconds: float) -> list[Sign]:
    """The last signs of the processes that gave no other one within `seconds`."""
    before = {rank: read(store, rank) for rank in ranks}
    time.sleep(seconds)
    still = []
    for rank, sign in before.items():
        if sign is not None and read(store, rank) == sign:
            still.append(sign)
    return still


def first_to_say(store: Store, text: str) -> bool:
    """Whether no other process has printed this, so that an error is one line, not `size`."""
    try:
        return int(store.add(f"said/{text}", 1)) == 1
    except (RuntimeError, ValueError):
        return True


def _key(rank: int) -> str:
    return f"sign/{rank}"
