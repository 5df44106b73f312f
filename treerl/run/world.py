"""The processes of a run: who they are, and how they share, sum and agree."""

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from safetensors.torch import load, save
from torch import Tensor
from torch.distributed.distributed_c10d import Store

from treerl.engine.peers import Peers
from treerl.errors import PeerError, TreerlError, first_line
from treerl.run import heartbeat
from treerl.run.heartbeat import Heartbeat, Sign
from treerl.run.last_words import LastWords, find, leave

T = TypeVar("T")

_WRITTEN = "written"  # key of the store: rank 0 has kept what there is to keep
_LAST_WORDS = 2.0  # seconds in which a process that ends can say why
_STILL = 3.0  # seconds without a sign of a process, when a call that needs all of them has broken


@dataclass
class World(Peers):
    """The processes of a run; `World()` is one process and needs nothing.

    world = join(timeout=300)  # reads what torchrun set
    world.share(8)             # range(4, 8) on rank 1 of 2
    world.agree(3)             # the largest number of all ranks
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0  # on this machine: its device
    timeout: float = 300.0  # seconds that one process waits for another
    store: Store | None = None  # keys that all processes see; None alone
    doing: str = "load"  # the phase that was announced last
    since: float = field(default_factory=time.monotonic)
    signs: Iterator[int] = field(default_factory=itertools.count)
    heart: Heartbeat | None = None  # None alone
    sharded: bool = False  # whether the model lies in parts on all processes
    idling: bool = False  # whether this one computes for the sake of the others alone

    def phase(self, name: str) -> None:
        self.doing = name
        self.since = time.monotonic()
        if self.store is not None:
            with suppress(RuntimeError, ValueError):  # the store is gone: the heartbeat says so
                heartbeat.give(self.store, self.sign())

    def sign(self) -> Sign:
        """A new sign of life."""
        return heartbeat.sign_of(self.rank, next(self.signs), self.doing, self.since)

    def share(self, count: int) -> range:
        return range(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def agree(self, number: int) -> int:
        if self.size == 1:
            return number
        largest = torch.tensor(number)
        with self._together("agree"):
            dist.all_reduce(largest, dist.ReduceOp.MAX)
        return int(largest)

    def forwards(self, count: int) -> int:
        if not self.sharded:
            return count
        return self.agree(0 if self.idling else count)

    @contextmanager
    def idle(self) -> Iterator[None]:
        self.idling = True
        try:
            yield
        finally:
            self.idling = False

    def gather(self, tensors: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
        if self.size == 1:
            return [dict(tensors)]
        # copies, as safetensors refuses tensors that share their memory or have gaps in it
        copies = {}
        for name, tensor in tensors.items():
            copies[name] = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        raw = save(copies)
        mine = torch.frombuffer(bytearray(raw), dtype=torch.uint8)
        lengths = [torch.zeros((), dtype=torch.int64) for _ in range(self.size)]
        with self._together("gather"):
            dist.all_gather(lengths, torch.tensor(len(mine)))
            longest = max(int(length) for length in lengths)
            padded = mine.new_zeros(longest)
            padded[: len(mine)] = mine
            buffers = [torch.empty_like(padded) for _ in range(self.size)]
            dist.all_gather(buffers, padded)
        parts = []
        order = list(tensors)  # in which they were given: safetensors has one of its own
        for buffer, length in zip(buffers, lengths, strict=True):
            part = load(buffer[: int(length)].numpy().tobytes())
            known = {name: part.pop(name) for name in order if name in part}
            parts.append(known | part)
        return parts

    def total(self, tensors: Sequence[Tensor]) -> None:
        if self.size == 1:
            return
        self.agree(0)  # on the CPU, so that no kernel of a GPU waits for a process that is late
        with self._together("total"):
            for tensor in tensors:
                dist.all_reduce(tensor)

    def attempt(self, work: Callable[[], T]) -> T:
        """The result of `work`; when it fails in any process, all of them raise that error."""
        error: BaseException | None = None
        try:
            result = work()
        except (TreerlError, OSError) as raised:
            error = raised
        if self.size == 1:
            if error is not None:
                raise error
            return result
        mine = "" if error is None else LastWords.of(error, self.rank).dump()
        for outcome in self.gather({"error": _bytes(mine)}):
            theirs = outcome["error"].numpy().tobytes().decode()
            if theirs and error is None:
                error = LastWords.load(theirs).error()
        if error is not None:
            raise error
        return result

    def text_of_first(self, text: str) -> str:
        """The text that rank 0 brought."""
        return (
            self.gather({"text": _bytes(text)})[0]["text"]
            .numpy()
            .tobytes()
            .decode("utf-8", "surrogateescape")
        )

    def tell(self, error: BaseException) -> None:
        """Leave why this process ends where the others find it; the first to say so is quoted."""
        if self.store is None:
            return
        words = LastWords.of(error, self.rank)
        if not words.known:
            words = replace(words, said=f"{words.said}, in phase {self.doing}")
        with suppress(RuntimeError, ValueError):  # the store ended before us
            leave(self.store, words)

    def wait_for_rank_0(self) -> None:
        """After an end that all processes agreed on: until rank 0, which writes, is done."""
        if self.store is None:
            return
        with suppress(RuntimeError, ValueError):
            if self.rank == 0:
                self.store.set(_WRITTEN, "yes")
            else:
                self.store.wait([_WRITTEN], timedelta(seconds=self.timeout))

    def first_to_say(self, text: str) -> bool:
        """Whether no other process has printed this, so that an error is one line, not `size`."""
        return self.store is None or heartbeat.first_to_say(self.store, text)

    def part(self) -> None:
        """From now on this process ends by itself, and gives no sign of life."""
        if self.heart is not None:
            self.heart.end()

    def close(self) -> None:
        """Part, once all processes are here: until then each of them is watched."""
        if self.size > 1:
            self.agree(0)
            self.part()
            dist.destroy_process_group()

    @contextmanager
    def _together(self, what: str) -> Iterator[None]:
        """Turns what torch.distributed says when a process is missing into one line."""
        try:
            yield
        except RuntimeError as error:
            raise self._lost(what, error) from error

    @contextmanager
    def naming_the_lost(self) -> Iterator[None]:
        """The same for what torch itself sends while a model in parts computes."""
        try:
            yield
        except RuntimeError as error:
            if self.sharded and (isinstance(error, dist.DistError) or "gloo" in str(error)):
                raise self._lost("forward or backward", error) from error
            raise

    def _lost(self, what: str, error: RuntimeError) -> PeerError:
        """Why a collective call broke: what a process said that failed, or who stands still."""
        waited = f"rank {self.rank} waited in vain in phase {self.doing} ({what})"
        store = self.store
        if store is None:
            return PeerError(f"{waited}: {first_line(error)}")
        others = [rank for rank in range(self.size) if rank != self.rank]
        try:
            end = time.monotonic() + _LAST_WORDS
            words = find(store)
            while words is None and time.monotonic() < end:
                time.sleep(0.05)
                words = find(store)
            still = [] if words else heartbeat.standing_still(store, others, _STILL)
            words = words or find(store)
            if words is not None:
                return PeerError(words.text)
            if still:
                return PeerError(f"rank {still[0].rank}: gone, in phase {still[0].phase}")
            signs = [heartbeat.read(store, rank) for rank in others]
        except (RuntimeError, ValueError):
            return PeerError(f"{waited}, and whoever held the keys of all ended")
        texts = [sign.text() for sign in signs if sign is not None]
        return PeerError(f"{waited}; {', '.join(texts)}")


def _bytes(text: str) -> Tensor:
    raw = bytearray(text.encode("utf-8", "surrogateescape"))
    return torch.frombuffer(raw, dtype=torch.uint8) if raw else torch.empty(0, dtype=torch.uint8)
