"""What a process sends through the network when only another one has something to compute."""

import torch

from treerl.engine.env import Env
from treerl.engine.tree import State


def idle(env: Env, rows: int, step: int = 0) -> State:
    """Rows of no tree, all zero: where a model lies in parts, a forward needs all processes."""
    device = env.latent_device
    x = torch.zeros(rows, *env.shape, dtype=env.latent_dtype, device=device)
    task = torch.zeros(rows, dtype=torch.int64, device=device)
    return State(x, torch.full_like(task, step), task)
