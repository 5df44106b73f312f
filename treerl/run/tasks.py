"""Tasks from a prompt file or from the package, and the part of them that is held out."""

import hashlib
import io
import re
import warnings
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from treerl.backbone.media import KINDS, PIXELS
from treerl.config import textfile
from treerl.config.schema import Config
from treerl.engine.task import Task
from treerl.errors import InputError, is_control, shorten, shown
from treerl.run.promptfile import Row, Rows, counted, lines, rows

MEDIA = ("image", "last_image", "mask", "control_image")  # keys whose values are files
_IMAGE_BYTES = 2**27
_SIDE = 16384
_NAME = re.compile(r"[A-Za-z0-9._-]{1,100}", re.ASCII)


def read_tasks(config: Config) -> tuple[list[Task], list[Task]]:
    """The tasks of the configuration: those that are trained on, and those that are held out."""
    data = config.data
    train, heldout = builtin(data.builtin)
    if data.train is not None:
        train = read(Path(data.train), data.max_length, data.prompt_field)
        if data.heldout is None:
            train, heldout = split(train, config.seed)
    if data.heldout is not None:
        heldout = read(Path(data.heldout), data.max_length, data.prompt_field)
    return train, heldout[: config.evaluate.max_prompts]


def read(path: Path, max_length: int, field: str = "prompt") -> list[Task]:
    """The tasks of a .txt, .jsonl or .csv file in their order; blank ones are skipped.

    `field` is the key, or the column, that holds the prompts. Of the other keys `negative`,
    `height`, `width` and the slots of media are the task's own, the rest is its metadata.
    """
    return _tasks(rows(path, field), path, max_length, field)


def split(tasks: Sequence[Task], seed: int, share: float = 0.1) -> tuple[list[Task], list[Task]]:
    """Training and held-out tasks; what is asked for is on one side only, however often it stands.

    A single one is both.
    """
    texts = {_asked(task) for task in tasks}
    order = sorted(texts, key=lambda text: hashlib.sha256(f"{seed}:{text}".encode()).digest())
    if len(order) < 2:
        return list(tasks), list(tasks)
    count = min(max(1, round(share * len(order))), len(order) - 1)
    held = set(order[:count])
    train = [task for task in tasks if _asked(task) not in held]
    return train, [task for task in tasks if _asked(task) in held]


def builtin(name: str) -> tuple[list[Task], list[Task]]:
    """The training and the held-out tasks of a set that comes with the package."""
    folder = resources.files("treerl").joinpath("prompts")
    if not _NAME.fullmatch(name) or not folder.joinpath(f"{name}-train.txt").is_file():
        names = [file.name for file in folder.iterdir()] if folder.is_dir() else []
        sets = [file.removesuffix("-train.txt") for file in names if file.endswith("-train.txt")]
        known = ", ".join(sorted(sets)) or "none"
        raise InputError(f"data.builtin: unknown built-in prompts {shorten(name)}; known: {known}")
    parts = []
    for part in ("train", "heldout"):
        file = folder.joinpath(f"{name}-{part}.txt")
        if not file.is_file():
            raise InputError(f"built-in prompts {name}: {file.name} is missing")
        text = textfile.decode(file.read_bytes(), file.name)
        numbered = counted(lines(text, file.name, "prompt"), file.name)
        parts.append(_tasks(numbered, Path(file.name), 10_000, "prompt"))
    return parts[0], parts[1]


def _asked(task: Task) -> str:
    files = [f"{slot}={path}" for slot, path in task.media.items()]
    return "\0".join([task.prompt, *files])


def _tasks(rows: Rows, path: Path, max_length: int, field: str) -> list[Task]:
    tasks = []
    for line, row in rows:
        where = f"{shown(path)}:{line}"
        prompt = _text(row, field, where, max_length)
        if prompt:
            tasks.append(_task(prompt, row, field, where, path.parent, max_length))
    if not tasks:
        raise InputError(f"{shown(path)}: expected at least one prompt, got none")
    return tasks


def _task(prompt: str, row: Row, field: str, where: str, folder: Path, max_length: int) -> Task:
    rest = {key: value for key, value in row.items() if key != field}
    negative = None
    if rest.get("negative") is not None:
        negative = _text(rest, "negative", where, max_length)
    media = {
        slot: _media(rest, slot, where, folder) for slot in MEDIA if rest.get(slot) is not None
    }
    size = _size(rest, where)
    for key in ("negative", "height", "width", *MEDIA):
        rest.pop(key, None)
    return Task(prompt, negative, media, rest, size)


def _text(row: Mapping[str, Any], key: str, where: str, max_length: int) -> str:
    if not isinstance(row[key], str):
        raise InputError(f'{where}: "{key}": expected a text, got {shorten(row[key])}')
    text: str = row[key].strip(" \t")
    for letter in text:
        if is_control(letter):
            code = f"U+{ord(letter):04X}"
            raise InputError(f"{where}: expected no control characters, got {code}")
    if len(text) > max_length:
        raise InputError(f"{where}: expected at most {max_length} characters, got {len(text)}")
    return text


def _size(row: Row, where: str) -> tuple[int, int] | None:
    """Height and width in pixels, which stand both or not at all."""
    sides = []
    for key in ("height", "width"):
        value = row.get(key)
        if isinstance(value, str) and value.strip().isdecimal() and len(value) < 10:  # of a table
            value = int(value)
        if value is not None and (type(value) is not int or not 1 <= value <= _SIDE):
            expected = f"expected an integer from 1 to {_SIDE}"
            raise InputError(f'{where}: "{key}": {expected}, got {shorten(value)}')
        sides.append(value)
    height, width = sides
    if (height is None) != (width is None):
        raise InputError(f'{where}: expected both "height" and "width" or neither, got one')
    return None if height is None or width is None else (height, width)


def _media(row: Row, slot: str, where: str, folder: Path) -> Path:
    """The file of a slot, a readable image; its path is relative to the prompt file."""
    value = _text(row, slot, where, 4096)
    path = folder / value
    try:
        _refuse_image(path)
    except InputError as error:
        raise InputError(f'{where}: "{slot}": {error}') from None
    return path


@cache
def _refuse_image(path: Path) -> None:
    """`InputError` when a file is no image that can be read."""
    data = textfile.read_bytes(path, _IMAGE_BYTES)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a large image is judged here
            with Image.open(io.BytesIO(data), formats=KINDS) as image:
                height, width = image.height, image.width
                small = height * width <= PIXELS
                if small:
                    image.load()
    except Exception as error:
        unknown = isinstance(error, UnidentifiedImageError)
        reason = "another file" if unknown else "a damaged one"
        raise InputError(
            f"{shown(path)}: expected a PNG, JPEG or WebP image, got {reason}"
        ) from error
    if not small:
        raise InputError(f"{shown(path)}: expected at most {PIXELS} pixels, got {width} x {height}")
