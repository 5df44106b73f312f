"""Compiles the blocks of the denoisers, one graph for all that are alike."""

from typing import Literal

import torch

from treerl.backbone.blocks import blocks
from treerl.backbone.contract import Backbone
from treerl.errors import InputError

Compile = Literal["auto", "blocks", "none"]


def compile_blocks(
    backbone: Backbone, choice: Compile, sharded: bool, backend: str = "inductor"
) -> None:
    """Compile on a GPU, or as told; once a run, as every forward has one row count.

    `InputError` where a choice cannot be met; `auto` then compiles nothing.
    """
    if choice == "none" or (choice == "auto" and (sharded or backbone.device.type != "cuda")):
        return
    if sharded:
        raise InputError("backbone.compile: expected auto or none with parallel.shard, got blocks")
    parts = [part for module in backbone.denoisers.values() for part in blocks(module)]
    if not parts and choice == "auto":
        return
    if not parts:
        raise InputError(
            f"backbone.compile: expected auto or none, as {type(backbone).__name__} has no blocks "
            "in a list or in its _no_split_modules, got blocks"
        )
    # a block meets few graphs, each in as many instances as there are layers of other ranks
    torch._dynamo.config.cache_size_limit = max(torch._dynamo.config.cache_size_limit, 32)
    for part in parts:
        part.compile(backend=backend, dynamic=False)
    backbone.compiled = True
