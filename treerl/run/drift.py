"""Whether processes that should hold the same weights do."""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from treerl.engine.parts import in_parts
from treerl.engine.peers import Peers
from treerl.errors import PeerError


def refuse_drift(parameters: Sequence[Tensor], peers: Peers, when: str) -> None:
    """`PeerError` in all processes when the trained weights of one differ from those of rank 0.

    Those that lie in parts are no copies of each other, and cannot drift apart.
    """
    parameters = [parameter for parameter in parameters if not in_parts(parameter)]
    if peers.size == 1 or not parameters:
        return
    digest = hashlib.sha256()
    for parameter in parameters:
        raw = parameter.detach().cpu().contiguous().flatten().view(torch.uint8)
        digest.update(raw.numpy().tobytes())
    ours = torch.frombuffer(bytearray(digest.digest()), dtype=torch.uint8)
    first, *others = [part["digest"] for part in peers.gather({"digest": ours})]
    for rank, other in enumerate(others, 1):
        if not torch.equal(first, other):
            raise PeerError(f"{when}: the weights of rank {rank} differ from those of rank 0")
