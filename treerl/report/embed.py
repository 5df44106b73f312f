"""Puts images of a run folder into its page as data URIs, within limits."""

import base64
import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageSequence

_FILE = 1 << 25  # bytes of a file
_PIXELS = 1 << 26  # of all frames of a file


@dataclass(frozen=True)
class Embedded:
    """An image in the page, or the reason why there is none."""

    uri: str = ""
    problem: str = ""
    small: bool = False  # few pixels: show them as squares


@dataclass
class Embedder:
    """Embeds images of one folder until the page is full."""

    folder: Path
    bytes_left: int = 24 << 20

    def embed(self, name: str | None, side: int) -> Embedded | None:
        """The PNG `name` of the folder, at most `side` pixels wide and high; None for None."""
        if name is None:
            return None
        path = self.folder / name
        try:
            if not path.resolve().is_relative_to(self.folder.resolve()) or not path.is_file():
                return Embedded(problem="the file is missing")
            if path.stat().st_size > _FILE:
                return Embedded(problem="the file is too large")
            content, small = _within(path.read_bytes(), side)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            reason = "too large" if isinstance(error, Image.DecompressionBombError) else "torn"
            return Embedded(problem=f"the file is {reason}")
        uri = "data:image/png;base64," + base64.b64encode(content).decode("ascii")
        if len(uri) > self.bytes_left:
            return Embedded(problem="the page is full")
        self.bytes_left -= len(uri)
        return Embedded(uri, small=small)


def _within(content: bytes, side: int) -> tuple[bytes, bool]:
    """The PNG at `side` pixels or its own size, and whether it is a small one."""
    with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
        if image.width * image.height * getattr(image, "n_frames", 1) > _PIXELS:
            raise Image.DecompressionBombError("too many pixels")
        image.load()
        larger = max(image.size)
        if larger <= side:
            return content, larger < 128
        first, *others = [frame.copy() for frame in ImageSequence.Iterator(image)]
        for frame in (first, *others):
            frame.thumbnail((side, side))
        buffer = io.BytesIO()
        if others:
            duration = image.info.get("duration", 120)
            first.save(buffer, "PNG", save_all=True, append_images=others, duration=duration)
        else:
            first.save(buffer, "PNG")
        return buffer.getvalue(), False
