"""Which files of the package one iteration of the default run enters, and how long they are.

    python scripts/trace_iteration.py

The second iteration is traced, on the thread that trains; the first one loads what is loaded once.
"""

import sys
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

import treerl

_ROOT = Path(__file__).resolve().parents[1]


def entered() -> Counter[Path]:
    """Calls into each file of the package."""
    calls: Counter[Path] = Counter()

    def note(frame: FrameType, event: str, argument: Any) -> None:
        path = Path(frame.f_code.co_filename)
        if event == "call" and path.is_relative_to(_ROOT):
            calls[path.relative_to(_ROOT)] += 1

    session = treerl.assemble(settings={"evaluate.max_prompts": 2})
    steps = session.train(2)
    next(steps)
    sys.setprofile(note)
    next(steps)
    sys.setprofile(None)
    return Counter({path: count for path, count in calls.items() if ".venv" not in path.parts})


def main() -> None:
    rooms: Counter[str] = Counter()
    lines = 0
    for path in sorted(entered()):
        text = (_ROOT / path).read_text(encoding="utf-8")
        length = sum(1 for line in text.splitlines() if line.strip())
        lines += length
        rooms[str(path.parent)] += 1
        print(f"{length:5}  {path}")
    print(f"{lines} lines that are not blank in {rooms.total()} files: {dict(rooms)}")


if __name__ == "__main__":
    main()
