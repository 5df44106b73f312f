"""Tasks from a file or from the package, and the part of them that is held out."""

import hashlib
import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from PIL import Image

from treerl.config import textfile
from treerl.config.schema import Config
from treerl.config.setting import is_control, shorten
from treerl.engine.task import Task
from treerl.errors import InputError
from treerl.run import rows

MEDIA = ("image", "last_image", "mask", "control_image")  # keys of a row that name a file
_NAME = re.compile(r"[A-Za-z0-9._-]{1,100}", re.ASCII)
_PIXELS = 2**26  # of one source image
_SIDE = range(8, 16385)


def read_tasks(config: Config) -> tuple[list[Task], list[Task]]:
    """The training and the held-out tasks of a configuration."""
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
    """The tasks of a .txt, .jsonl or .csv file in their order; blank prompts are skipped.

    `field` is the key, or the column, of the prompt. `negative`, `height` and `width`, and files
    under `MEDIA` (relative to the prompt file) are the task's own; every other key is metadata.
    """
    return _tasks(rows.read(path, field), textfile.shown(path), max_length, field, path.parent)


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
            raise InputError(f"data.builtin: {name}: {file.name} is missing")
        text = textfile.decode(file.read_bytes(), file.name)
        lines = list(rows.lines(text, file.name, "prompt"))
        parts.append(_tasks(lines, file.name, 10_000, "prompt", Path()))
    return parts[0], parts[1]


def split(tasks: Sequence[Task], seed: int, share: float = 0.1) -> tuple[list[Task], list[Task]]:
    """Training and held-out tasks; a prompt is on one side only, whatever the order of the file.

    A single prompt is both.
    """

    def place(prompt: str) -> bytes:
        return hashlib.sha256(f"{seed}:{prompt}".encode()).digest()

    prompts = sorted({task.prompt for task in tasks}, key=place)
    if len(prompts) < 2:
        return list(tasks), list(tasks)
    count = min(max(1, round(share * len(prompts))), len(prompts) - 1)
    held = set(prompts[:count])
    train = [task for task in tasks if task.prompt not in held]
    return train, [task for task in tasks if task.prompt in held]


def _tasks(
    numbered: Sequence[tuple[int, rows.Row]],
    where: str,
    max_length: int,
    field: str,
    folder: Path,
) -> list[Task]:
    tasks = []
    for line, row in numbered:
        place = f"{where}:{line}"
        prompt = _text(row[field], place, max_length)
        if prompt:
            tasks.append(_task(prompt, row, place, max_length, field, folder))
    if not tasks:
        raise InputError(f"{where}: expected at least one prompt, got none")
    return tasks


def _task(
    prompt: str, row: rows.Row, place: str, max_length: int, field: str, folder: Path
) -> Task:
    rest = {key: value for key, value in row.items() if key != field}
    negative = rest.pop("negative", None)
    if negative is not None and not isinstance(negative, str):
        raise InputError(f'{place}: "negative": expected a text, got {shorten(negative)}')
    media = {slot: _image(slot, rest.pop(slot), place, folder) for slot in MEDIA if slot in rest}
    size = _size(rest, place)
    return Task(
        prompt=prompt,
        negative=None if negative is None else _text(negative, place, max_length),
        media=media,
        metadata=rest,
        size=size,
    )


def _text(text: str, place: str, max_length: int) -> str:
    text = text.strip(" \t")
    for letter in text:
        if is_control(letter):
            raise InputError(f"{place}: expected no control characters, got U+{ord(letter):04X}")
    if len(text) > max_length:
        raise InputError(f"{place}: expected at most {max_length} characters, got {len(text)}")
    return text


def _image(slot: str, name: object, place: str, folder: Path) -> Path:
    """The file of a source image, which can be opened and has a size that one can work with."""
    if not isinstance(name, str) or not name:
        raise InputError(
            f'{place}: "{slot}": expected the name of an image file, got {shorten(name)}'
        )
    path = (folder / name).resolve()
    shown = textfile.shown(path)
    if not path.is_file():
        raise InputError(f'{place}: "{slot}": no such file: {shown}')
    try:
        with Image.open(path) as image:
            width, height = image.size
            image.verify()
    except Exception as error:  # Pillow raises whatever a damaged file makes it stumble over
        raise InputError(f'{place}: "{slot}": {shown} is no image that can be read') from error
    if width * height > _PIXELS:
        text = f"expected at most {_PIXELS} pixels, got {width}x{height}"
        raise InputError(f'{place}: "{slot}": {shown}: {text}')
    return path


def _size(rest: dict[str, Any], place: str) -> tuple[int, int] | None:
    sides = [rest.pop(key, None) for key in ("height", "width")]
    if sides == [None, None]:
        return None
    numbers = []
    for side in sides:
        text = str(side)
        if not text.isdecimal() or len(text) > 5 or int(text) not in _SIDE:
            got = ", ".join(shorten(side) for side in sides)
            raise InputError(f"{place}: expected height and width from 8 to 16384, got {got}")
        numbers.append(int(text))
    return numbers[0], numbers[1]
