"""Finds the other processes of a run, as a launcher names them in the environment."""

import atexit
import gc
import os
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from treerl.errors import InputError, PeerError, first_line, shorten
from treerl.run import heartbeat
from treerl.run.heartbeat import Heartbeat
from treerl.run.muster import muster
from treerl.run.world import World

_MOST = 65_536  # processes


def join(timeout: float = 300.0, patience: float = 10.0) -> World:
    """The world that a launcher such as torchrun describes in the environment; else one process.

    `timeout` and `patience` are `parallel.timeout` and `parallel.patience`.

    `InputError` when it describes half of one: several processes that do not know of each other
    would all do the same run.
    """
    size = _number("WORLD_SIZE", 1)
    if "WORLD_SIZE" not in os.environ:
        _refuse_strangers()
    if size == 1:
        return World(timeout=timeout)
    missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise InputError(
            f"WORLD_SIZE: expected {', '.join(missing)} beside it, as torchrun sets them, got "
            f"{size} alone"
        )
    rank = _number("RANK", 0)
    if rank >= size:
        raise InputError(f"RANK: expected a number below WORLD_SIZE = {size}, got {rank}")
    local = _number("LOCAL_RANK", 0)
    limit = timedelta(seconds=timeout)
    try:
        store, rank, size = next(rendezvous("env://", rank, size, timeout=limit))
        return connect(store, rank, size, local, timeout, patience)
    except (RuntimeError, ValueError) as error:
        raise PeerError(f"rank {rank} of {size} could not join: {first_line(error)}") from error


def connect(
    store: Store,
    rank: int,
    size: int,
    local_rank: int = 0,
    timeout: float = 300.0,
    patience: float = 10.0,
) -> World:
    """The world of `size` processes that all see `store`."""
    # DTensors and errors hold the group in cycles; where the end of Python finds them, torch 2.13
    # aborts the process with a code of its own
    atexit.register(gc.collect)
    backend = "gloo"
    if torch.cuda.is_available() and dist.is_nccl_available():
        torch.cuda.set_device(local_rank)
        backend = "cpu:gloo,cuda:nccl"
    limit = timedelta(seconds=timeout)
    name = muster(store, rank, size, timeout)
    group = PrefixStore(f"group/{name}", store)
    dist.init_process_group(backend, store=group, rank=rank, world_size=size, timeout=limit)
    if dist.get_world_size() != size or dist.get_rank() != rank:
        got = f"{dist.get_rank()} of {dist.get_world_size()}"
        raise PeerError(f"expected to be rank {rank} of {size}, got {got}")
    prefix = f"treerl/{name}"
    if rank == 0:
        store.set(heartbeat.KEYS, prefix)  # where a launcher of ours looks
    keys = PrefixStore(prefix, store)
    world = World(rank, size, local_rank, timeout, keys)
    world.heart = Heartbeat(keys, rank, size, timeout, patience, world.sign)
    return world


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, "").strip()
    if not text:
        return default
    digits = text.isdecimal() and text.isascii() and len(text) <= len(str(_MOST))
    number = int(text) if digits else -1
    if not (1 if name == "WORLD_SIZE" else 0) <= number <= _MOST:
        expected = f"expected a whole number up to {_MOST}, as torchrun sets it"
        raise InputError(f"{name}: {expected}, got {shorten(text)}")
    return number


def _refuse_strangers() -> None:
    """`InputError` for tasks of SLURM or MPI that know nothing of each other."""
    slurm = "SLURM_STEP_NUM_TASKS" if "SLURM_STEP_NUM_TASKS" in os.environ else "SLURM_NTASKS"
    for name in (slurm, "OMPI_COMM_WORLD_SIZE", "PMI_SIZE"):
        if _number(name, 1) > 1:
            raise InputError(
                f"{name}: expected 1, as without WORLD_SIZE every task would do the same run, got "
                f"{os.environ[name]}; start one task a node, and torchrun in it"
            )
