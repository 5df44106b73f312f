"""What goes between a run and a reward elsewhere: one JSON header and pictures as npy; nothing is ever unpickled.

A message is eight bytes (the header's length), the header, and the rest. Requests: `protocol`, `ids`, `prompts`, then
the samples. Replies: `protocol`, `ids` and `scores` (null for a score that is not finite), or `error`.
"""

import io
import json
import math
import struct
from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor

PROTOCOL = 1
LENGTH = 8
_HEADER = 64 * 2**20  # bytes of the longest header


class WireError(Exception):
    """A message that is not of this protocol."""


def request(images: Tensor, prompts: Sequence[str]) -> bytes:
    """The question for the scores of samples `[N, ...]`."""
    header = {
        "protocol": PROTOCOL,
        "ids": [str(row) for row in range(len(prompts))],
        "prompts": list(prompts),
    }
    buffer = io.BytesIO()
    np.save(
        buffer, images.detach().to("cpu", torch.float32).contiguous().numpy(), allow_pickle=False
    )
    return packed(header, buffer.getvalue())


def packed(header: dict[str, Any], rest: bytes = b"") -> bytes:
    """A message."""
    text = json.dumps(header, allow_nan=False).encode()
    return struct.pack(">Q", len(text)) + text + rest


def unpacked(message: bytes) -> tuple[dict[str, Any], bytes]:
    """The header and the rest of a message."""
    if len(message) < LENGTH:
        raise WireError(f"expected a message, got {len(message)} bytes")
    (length,) = struct.unpack(">Q", message[:LENGTH])
    if length > min(_HEADER, len(message) - LENGTH):
        raise WireError(f"expected a header of at most {len(message) - LENGTH} bytes, got {length}")
    return strict(message[LENGTH : LENGTH + length]), message[LENGTH + length :]


def strict(text: bytes) -> dict[str, Any]:
    """A JSON object of this protocol; NaN and its relatives are no JSON."""
    try:
        found = json.loads(text.decode("utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise WireError(f"expected JSON, got {text[:60]!r}") from error
    if not isinstance(found, dict):
        raise WireError(f"expected a JSON object, got {type(found).__name__}")
    if found.get("protocol") != PROTOCOL or isinstance(found["protocol"], bool):
        raise WireError(f"expected protocol {PROTOCOL}, got {found.get('protocol')!r}")
    return found


def samples(data: bytes) -> Tensor:
    """The pictures `[N, 3, H, W]` or videos `[N, F, 3, H, W]` of a request."""
    try:
        found = np.load(io.BytesIO(data), allow_pickle=False)
    except Exception as error:
        raise WireError("expected samples as npy") from error
    if (
        not isinstance(found, np.ndarray)
        or found.dtype != np.float32
        or found.ndim not in (4, 5)
        or found.shape[-3] != 3
    ):
        raise WireError("expected float32 samples [N, 3, H, W] or [N, F, 3, H, W]")
    return torch.from_numpy(found)


def reply(ids: Sequence[str], scores: Tensor) -> dict[str, Any]:
    """The answer; a score that is not finite is null."""
    plain = [value if math.isfinite(value) else None for value in scores.tolist()]
    return {"protocol": PROTOCOL, "ids": list(ids), "scores": plain}


def scores(found: dict[str, Any], count: int) -> Tensor:
    """The scores `[count]` of an answer, in the order of the question, whatever the order of the answer."""
    ids, given = found.get("ids"), found.get("scores")
    if (
        not isinstance(ids, list)
        or not isinstance(given, list)
        or len(ids) != count
        or len(given) != count
    ):
        raise WireError(f"expected ids and scores of {count} samples")
    if not all(isinstance(one, str) for one in ids) or set(ids) != {
        str(row) for row in range(count)
    }:
        raise WireError("expected the ids of the request, each once")
    for one in given:
        if one is not None and (
            isinstance(one, bool) or not isinstance(one, int | float) or not math.isfinite(one)
        ):
            raise WireError(f"expected numbers, got {str(one)[:40]!r}")
    ordered = torch.empty(count, dtype=torch.float64)
    for row, one in zip(ids, given, strict=True):
        ordered[int(row)] = math.nan if one is None else float(one)
    return ordered


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
