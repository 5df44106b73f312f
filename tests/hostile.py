"""Malicious artefacts: what would run code or write a file, and a place that shows if one did."""

import hashlib
import io
import json
import pickle
import shutil
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from treerl.cli import main

SECRET = "nobody-else-reads-this"
ATTACK = "\"'><script>alert(1)</script>\x1b[2J\x1b]0;title\x07\u202e{{ 7 * 191 }}</style>"
ESCAPES = "\x1b[2J\x1b]0;title\x07"


class _Running:
    """What is unpickled as a call of `exec`."""

    def __init__(self, code: str) -> None:
        self.code = code

    def __reduce__(self) -> Any:
        return exec, (self.code,)


@dataclass(frozen=True)
class Place:
    """A folder to work in, with others' files beside it."""

    root: Path

    @property
    def inside(self) -> Path:
        return self.root / "inside"

    @property
    def outside(self) -> Path:
        return self.root / "outside"

    @property
    def marker(self) -> Path:
        """What there is if something ran."""
        return self.root / "ran"

    @property
    def code(self) -> str:
        return f"open({str(self.marker)!r}, 'w').close()\n\nclass Evil:\n    pass\n"

    @property
    def pickled(self) -> bytes:
        return pickle.dumps(_Running(self.code), protocol=2)

    @property
    def saved(self) -> bytes:
        """The same as torch.save writes it."""
        buffer = io.BytesIO()
        torch.save({"weight": _Running(self.code)}, buffer)
        return buffer.getvalue()

    def beside(self) -> dict[str, str]:
        """All that is not in the folder, with what it holds."""
        found = {}
        for path in sorted(self.root.rglob("*")):
            if path.is_relative_to(self.inside):
                continue
            content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
            found[str(path.relative_to(self.root))] = content
        return found


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """The place of a test, which ends with nothing run and nothing written beside it."""
    here = Place(tmp_path)
    here.inside.mkdir()
    for name in ("iteration-000009", "empty"):
        (here.outside / name).mkdir(parents=True)
    for name in ("precious", "precious.yaml", "precious.png", "iteration-000009/file"):
        (here.outside / name).write_text(f"key: {SECRET}\n")
    monkeypatch.chdir(here.inside)
    # as somebody would who says yes to whatever is asked
    monkeypatch.setattr("builtins.input", lambda *words: "y")
    before = here.beside()
    yield here
    assert not here.marker.exists()
    assert here.beside() == before


def told(words: list[str], code: int, capsys: pytest.CaptureFixture[str]) -> str:
    """What a command says that ends with this code; printable lines, and no traceback."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(words)
    out, err = capsys.readouterr()
    assert (ended.value.code or 0) == code, err
    for line in (out + err).splitlines():
        assert line.isprintable(), line
    assert "Traceback" not in out + err
    return out + err


def change(path: Path, **values: Any) -> None:
    """Set keys of a JSON file, which may not be there yet."""
    described = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(described | values))


def link(path: Path, target: Path) -> None:
    """A link in the place of a file or a folder."""
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def sum_up(checkpoint: Path, **more: Path) -> None:
    """A manifest that says of every file, and of others by their names, what they are."""
    files = {}
    for path in sorted(checkpoint.rglob("*")):
        if path.is_file() and path.name != "manifest.json":
            files[str(path.relative_to(checkpoint))] = path
    sums = {}
    for name, path in (files | more).items():
        content = path.read_bytes()
        sums[name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    text = json.dumps({"files": sums, "format": 1}, indent=1, sort_keys=True) + "\n"
    (checkpoint / "manifest.json").write_text(text)


def bomb(side: int = 50_000) -> bytes:
    """A PNG of a few bytes that says it has many pixels."""
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b""))
    chunks = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def drawing(place: Place) -> dict[str, bytes]:
    """Files named as images that are something else, or too much."""
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" onload="{ATTACK}"><script>1</script></svg>'
    start = "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"
    shell = f"{start}({place.marker}) (w) file closefile\n"
    return {
        "pickle": place.pickled,
        "svg": svg.encode(),
        "postscript": shell.encode(),
        "bomb": bomb(),
    }


DRAWINGS = ("pickle", "svg", "postscript", "bomb")
