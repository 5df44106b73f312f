"""Files that tasks bring: an image by its slot."""

from PIL import Image

from treerl.engine.task import Task
from treerl.errors import InputError, first_line, printable

KINDS = ("PNG", "JPEG", "WEBP")  # Pillow hands some of the others to programs of the system
PIXELS = 2**26  # 8192 x 8192


def image(task: Task, slot: str = "image") -> Image.Image:
    """The RGB image in a slot of a task's media; `InputError` names the task and the file."""
    name = f"task {printable(task.prompt, 60)!r}: {slot}"
    path = task.media.get(slot)
    if path is None:
        raise InputError(f"{name}: expected a file, got none")
    try:
        with Image.open(path, formats=KINDS) as opened:
            if opened.width * opened.height > PIXELS:
                raise ValueError(f"expected at most {PIXELS} pixels")
            return opened.convert("RGB")
    except Exception as error:  # of whatever reads this kind of file
        raise InputError(f"{name}: {printable(path)}: {first_line(error)}") from error
