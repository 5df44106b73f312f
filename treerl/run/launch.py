"""`treerl run --devices N`: the processes of one machine, started, watched and ended together."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

import torch
from torch.distributed import TCPStore  # type: ignore[attr-defined]
from torch.distributed.distributed_c10d import PrefixStore, Store

from treerl.errors import InputError, PeerError
from treerl.run.heartbeat import KEYS, SAVING, first_to_say, read
from treerl.run.last_words import LastWords, find, leave
from treerl.run.signals import STOPPING

_GRACE = 10.0  # seconds in which the others can end when one has failed
_HOST = "127.0.0.1"

Children = list[subprocess.Popen[bytes]]


def launch(count: int, words: Sequence[str], timeout: float) -> int:
    """Run `treerl` with these words in `count` processes, one a device; the exit code of them all.

    It is that of the first process that failed; 5 when that has no code of ours, or was killed.
    Another one that is saving then has `timeout` seconds to end.
    """
    _refuse(count)
    store = TCPStore(_HOST, 0, is_master=True, wait_for_workers=False)
    children: Children = []
    with _forwarded(children) as sent:
        try:
            for rank in range(count):
                environment = _environment(rank, count, store.port)
                command = [sys.executable, "-m", "treerl", *words]
                # a session of its own: a terminal's Ctrl-C reaches each of them once, through us
                child = subprocess.Popen(
                    command, env=environment, stdin=subprocess.DEVNULL, start_new_session=True
                )
                children.append(child)
            if sent:  # which may have come between two of them, when nothing has begun
                return 128 + sent[0]
            return _watched(children, store, sent, timeout)
        finally:
            _end(children)


def _refuse(count: int) -> None:
    if torch.cuda.is_available() and count > torch.cuda.device_count():
        raise InputError(
            f"--devices: expected at most {torch.cuda.device_count()}, as many GPUs as there are, "
            f"got {count}"
        )


def _environment(rank: int, count: int, port: int) -> dict[str, str]:
    """What torchrun would set as well."""
    threads = max(1, (os.cpu_count() or 1) // count)
    return {
        "OMP_NUM_THREADS": str(threads),
        **os.environ,
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": _HOST,
        "MASTER_PORT": str(port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",  # the store is here, not in rank 0
    }


@contextmanager
def _forwarded(children: Children) -> Iterator[list[int]]:
    """While inside, signals go to all processes; those that came."""
    sent: list[int] = []

    def forward(number: int, frame: FrameType | None) -> None:
        sent.append(number)
        for child in children:
            child.send_signal(number)

    before = {number: signal.signal(number, forward) for number in STOPPING}
    try:
        yield sent
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _watched(children: Children, store: Store, sent: Sequence[int], timeout: float) -> int:
    """Wait until all have ended; when one has failed, the others have a grace to do so."""
    verdict = 0
    failed: float | None = None  # when; not where all were asked to stop, as they may be saving
    while None in [child.poll() for child in children]:  # each is asked: that sets returncode
        for rank, child in enumerate(children):
            if child.returncode and verdict == 0:
                verdict = _code(rank, child.returncode, store, sent)
                failed = time.monotonic() if verdict <= 128 else None
        if failed is not None:
            grace = max(timeout, _GRACE) if _saving(children, store) else _GRACE
            if time.monotonic() - failed > grace:
                break
        time.sleep(0.05)
    ended = [(rank, child.returncode) for rank, child in enumerate(children) if child.returncode]
    if verdict == 0 and ended:  # all of them between two looks
        verdict = _code(*ended[0], store, sent)
    keys = _keys(store)
    words = None if keys is None else find(keys)
    if verdict == PeerError.code and keys is not None and words is not None:
        if first_to_say(keys, words.text):
            print(f"treerl: {words.text}", file=sys.stderr)  # nobody was left to say it
    return verdict


def _saving(children: Children, store: Store) -> bool:
    """Whether one of them still keeps what was trained."""
    keys = _keys(store)
    for rank, child in enumerate(children):
        sign = None if keys is None else read(keys, rank)
        if child.poll() is None and sign is not None and sign.phase == SAVING:
            return True
    return False


def _keys(store: Store) -> Store | None:
    """Where the processes talk, once they have met."""
    return PrefixStore(store.get(KEYS).decode(), store) if store.check([KEYS]) else None


def _code(rank: int, code: int, store: Store, sent: Sequence[int]) -> int:
    """The exit code of a run whose process `rank` was the first to fail with `code`."""
    if code > 0:
        return PeerError.code if code == 1 else code
    if -code in sent:
        return 128 - code
    name = signal.Signals(-code).name
    keys = _keys(store)
    if keys is None:
        print(f"treerl: rank {rank}: ended by {name} before all had met", file=sys.stderr)
        return PeerError.code
    sign = read(keys, rank)
    phase = "" if sign is None else f" in phase {sign.phase}"
    words = LastWords.of(PeerError(f"rank {rank}: ended by {name}{phase}"), rank)
    leave(keys, words)  # so that the others say the same
    return PeerError.code


def _end(children: Children) -> None:
    """Leave no process behind."""
    for child in children:
        if child.poll() is None:
            child.kill()
    for child in children:
        child.wait()
