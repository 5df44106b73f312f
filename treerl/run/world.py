"""The processes of a run: who they are, and how they share, sum and agree."""

import atexit
import gc
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from safetensors.torch import load, save
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore, Store

from treerl.engine.peers import Peers
from treerl.errors import PeerError, TreerlError, first_line
from treerl.run.retelling import retold, told

T = TypeVar("T")

_FAILED = "treerl/failed"  # key of the store: the first error of any process
_WRITTEN = "treerl/written"  # key: rank 0 has kept what there is to keep
_PATIENCE = 2.0  # seconds in which a process that ends can say why


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
    sharded: bool = False  # whether the model lies in parts on all processes
    idling: bool = False  # whether this one computes for the sake of the others alone

    def phase(self, name: str) -> None:
        self.doing = name
        self.since = time.monotonic()

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
        outcomes = self.gather({"error": _bytes(json.dumps(told(error, self.rank)))})
        for outcome in outcomes:
            said = json.loads(outcome["error"].numpy().tobytes())
            if said is not None and error is None:
                error = retold(said)
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
        with suppress(RuntimeError, ValueError):  # the store ended before us
            self.store.compare_set(_FAILED, "", json.dumps(told(error, self.rank)))

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
        if self.store is None:
            return True
        try:
            return int(self.store.add(f"treerl/said/{text}", 1)) == 1
        except (RuntimeError, ValueError):
            return True

    def close(self) -> None:
        """Part, once all processes are here."""
        if self.size > 1:
            self.agree(0)
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
        """Why a collective call broke; a process that failed has mostly said so."""
        end = time.monotonic() + _PATIENCE
        store = self.store
        while store is not None and time.monotonic() < end:
            try:
                if store.check([_FAILED]):
                    said = json.loads(store.get(_FAILED))
                    return PeerError(f"rank {said['rank']} ended: {said['text']}")
            except RuntimeError:
                break
            time.sleep(0.05)
        where = f"rank {self.rank} waited in vain in phase {self.doing}"
        return PeerError(f"{where} ({what}): another process ended or hangs: {first_line(error)}")


def connect(
    store: Store, rank: int, size: int, local_rank: int = 0, timeout: float = 300.0
) -> World:
    """The world of `size` processes that all see `store`."""
    patience = timedelta(seconds=timeout)
    # DTensors and errors hold the group in cycles; where the interpreter's end finds them, torch
    # 2.13 aborts the process with its own exit code
    atexit.register(gc.collect)
    backend = "gloo"
    if torch.cuda.is_available() and dist.is_nccl_available():
        torch.cuda.set_device(local_rank)
        backend = "cpu:gloo,cuda:nccl"
    group = PrefixStore("group", store)
    dist.init_process_group(backend, store=group, rank=rank, world_size=size, timeout=patience)
    if dist.get_world_size() != size or dist.get_rank() != rank:
        got = f"{dist.get_rank()} of {dist.get_world_size()}"
        raise PeerError(f"expected to be rank {rank} of {size}, got {got}")
    return World(rank, size, local_rank, timeout, PrefixStore("keys", store))


def _bytes(text: str) -> Tensor:
    raw = bytearray(text.encode("utf-8", "surrogateescape"))
    return torch.frombuffer(raw, dtype=torch.uint8) if raw else torch.empty(0, dtype=torch.uint8)
