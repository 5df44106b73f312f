"""What goes between a run and a reward elsewhere: questions as safetensors, answers as JSON.

A question holds the tensors `images` `[N, ...]`, `group` `[N]` and `media.0`, `media.1`, ... (the
bytes of the tasks' files), and in its metadata the protocol and the tasks. An answer is a JSON
object with `protocol` and, by route, `ids` and `scores` (null for a score that is no number),
`measures`, or `error`. Nothing is ever unpickled.
"""

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch
from safetensors.torch import load, save
from torch import Tensor

from treerl.engine.task import Samples, Task
from treerl.reward.call import is_title

PROTOCOL = 2
MEASURES = 64  # of one reward, at most
_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,10}")


class WireError(Exception):
    """A message that is not of this protocol."""


def question(tasks: Sequence[Any], samples: Samples | None = None) -> bytes:
    """A message about tasks, and about the samples that were made for them."""
    tensors: dict[str, Tensor] = {}
    if samples is not None:
        tensors["images"] = samples.images.detach().to("cpu", torch.float32).contiguous()
        tensors["group"] = samples.group.to("cpu", torch.int64).contiguous()
    files: dict[Path, str] = {}
    rows = [_plain(task, files) for task in tasks]
    for path, name in files.items():
        content = bytearray(path.read_bytes())
        if not content:
            raise WireError(f"{path} is empty")
        tensors[name] = torch.frombuffer(content, dtype=torch.uint8)
    try:
        text = json.dumps(rows, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise WireError(f"a task's metadata is not JSON: {error}") from error
    return save(tensors, {"protocol": str(PROTOCOL), "tasks": text})


def tasks_of(message: bytes, folder: Path) -> tuple[list[Task], dict[str, Tensor]]:
    """The tasks and the tensors of a question; media files are written into `folder`."""
    try:
        tensors = load(message)
        length = int.from_bytes(message[:8], "little")
        metadata = json.loads(message[8 : 8 + length])["__metadata__"]
        if metadata["protocol"] != str(PROTOCOL):
            raise WireError(f"expected protocol {PROTOCOL}, got another")
        rows = json.loads(metadata["tasks"])
        files = {
            name: tensor.numpy().tobytes()
            for name, tensor in tensors.items()
            if name.startswith("media.")
        }
        return [_task(row, files, folder) for row in rows], tensors
    except WireError:
        raise
    except Exception as error:
        raise WireError("expected a question of this protocol") from error


def samples_of(tasks: Sequence[Task], tensors: dict[str, Tensor]) -> Samples:
    """The samples of a question."""
    images = tensors.get("images")
    group = tensors.get("group")
    if images is None or images.dtype != torch.float32 or images.dim() not in (4, 5):
        raise WireError("expected float32 samples [N, 3, H, W] or [N, F, 3, H, W]")
    if images.shape[-3] != 3 or images.numel() == 0:
        raise WireError("expected float32 samples [N, 3, H, W] or [N, F, 3, H, W]")
    if group is None or group.dtype != torch.int64 or tuple(group.shape) != (len(images),):
        raise WireError("expected a group for each sample")
    if len(tasks) != len(images):
        raise WireError("expected a task for each sample")
    return Samples(images, tuple(tasks), group)


def answer(columns: dict[str, Tensor]) -> dict[str, Any]:
    """Columns `[N]` by name, as an answer has them; what is not finite is null."""
    plain: dict[str, Any] = {}
    for name, column in columns.items():
        plain[name] = [number if math.isfinite(number) else None for number in column.tolist()]
    return plain


def strict(text: bytes) -> dict[str, Any]:
    """A JSON object of this protocol; NaN and its relatives are no JSON."""
    try:
        content = json.loads(text.decode("utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise WireError(f"expected JSON, got {text[:60]!r}") from error
    if not isinstance(content, dict):
        raise WireError(f"expected a JSON object, got {type(content).__name__}")
    protocol = content.get("protocol")
    if protocol != PROTOCOL or isinstance(protocol, bool):
        raise WireError(f"expected protocol {PROTOCOL}, got {_kind(protocol)}")
    return content


def scores(content: dict[str, Any], count: int) -> Tensor:
    """The scores `[count]` of an answer in the question's order, whatever the answer's own is."""
    ids = content.get("ids")
    if not isinstance(ids, list) or len(ids) != count:
        raise WireError(f"expected ids of {count} samples")
    wanted = {str(row) for row in range(count)}
    if not all(isinstance(name, str) for name in ids) or set(ids) != wanted:
        raise WireError("expected the ids of the question, each once")
    column = _column(content.get("scores"), count)
    ordered = torch.empty_like(column)
    ordered[torch.tensor([int(name) for name in ids])] = column
    return ordered


def measures(content: dict[str, Any], count: int) -> dict[str, Tensor]:
    """The further figures of an answer, each `[count]`."""
    columns = content.get("measures")
    if not isinstance(columns, dict) or len(columns) > MEASURES:
        raise WireError(f"expected at most {MEASURES} measures by name")
    if not all(is_title(name) for name in columns):
        raise WireError("expected short names of measures")
    return {name: _column(values, count) for name, values in columns.items()}


def _column(values: object, count: int) -> Tensor:
    if not isinstance(values, list) or len(values) != count:
        raise WireError(f"expected {count} numbers")
    numbers = []
    for value in values:
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise WireError(f"expected numbers, got {_kind(value)}")
        try:
            number = math.nan if value is None else float(value)
        except OverflowError:
            number = math.inf
        if math.isinf(number):
            raise WireError("expected finite numbers")
        numbers.append(number)
    return torch.tensor(numbers, dtype=torch.float64)


def _plain(task: Any, files: dict[Path, str]) -> dict[str, Any]:
    """A task as JSON has it; the names of its files' tensors are noted in `files`."""
    row = Task.of(task)
    if not isinstance(row.prompt, str):
        raise WireError(f"expected tasks with a text, got {type(task).__name__}")
    media = {}
    for slot, path in row.media.items():
        name = files.setdefault(Path(path), f"media.{len(files)}")
        media[slot] = [name, Path(path).suffix]
    return {
        "prompt": row.prompt,
        "negative": row.negative,
        "media": media,
        "metadata": dict(row.metadata),
        "size": row.size,
    }


def _task(row: dict[str, Any], files: dict[str, bytes], folder: Path) -> Task:
    media = {}
    for slot, (name, suffix) in row["media"].items():
        ending = suffix if _SUFFIX.fullmatch(suffix) else ""
        path = folder / f"{sorted(files).index(name)}{ending}"
        if not path.exists():
            path.write_bytes(files[name])
        media[slot] = path
    size = row["size"]
    if size is not None:
        size = (int(size[0]), int(size[1]))
    prompt = row["prompt"]
    negative = row["negative"]
    if not isinstance(prompt, str) or not isinstance(negative, str | None):
        raise WireError("expected texts for prompts")
    return Task(prompt, negative, media, dict(row["metadata"]), size)


def _kind(value: object) -> str:
    """A value in words; a text is not repeated, as a server may have put a secret into it."""
    return str(value)[:40] if isinstance(value, bool | int | float) else type(value).__name__


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
