"""What comes of a reward that misbehaves, and what should: for `reward_faults.py` beside this."""

import json
import math
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from faulty_reward import BAIT, OVERSLEPT
from safetensors.torch import load_file

DEADLINE = 3.0  # `scoring.timeout`, seconds
REWARD = str(Path(__file__).parent / "faulty_reward.py") + ":Faulty"
LAG = 2.0  # seconds after the deadline by which all has ended
HARMLESS = ("graph", "seeds", "prints", "child", "thread")
DROPPED = "nan"  # with `scoring.on_bad_reward=drop_tree`
_OWN_DEATH = {"dies": 7, "crashes": -signal.SIGSEGV}  # where the reward's process is the run's
# what a run that its reward holds is sent at the deadline, as nothing else ends it
SENT = {"hangs": signal.SIGTERM, "hangs-in-c": signal.SIGKILL}
_SENT_CODE = {"hangs": 128 + signal.SIGTERM, "hangs-in-c": -signal.SIGKILL}


@dataclass(frozen=True)
class Expected:
    """What `docs/rewards.md` says of a misbehaviour in a place."""

    code: int
    limit: float = DEADLINE + LAG  # seconds from the misbehaviour to the run's last word
    named: bool = False  # whether the last line names the reward
    dropped: bool = False  # whether the tree teaches nothing

    @classmethod
    def of(cls, fault: str, place: str) -> "Expected":
        here = place == "process"
        if fault == DROPPED:
            return cls(0, dropped=True)
        if fault in HARMLESS:
            return cls(0)
        if here and fault == "oversleeps":  # nothing can end it, and nothing does
            return cls(0, DEADLINE + OVERSLEPT + LAG)
        if here and fault in _OWN_DEATH:
            return cls(_OWN_DEATH[fault])
        if here and fault in SENT:
            return cls(_SENT_CODE[fault])
        return cls(6, named=True)


@dataclass(frozen=True)
class Outcome:
    """What it led to."""

    code: int
    seconds: float  # from the misbehaviour to the run's last word, or to its death
    said: str  # all of stderr
    folder: Path
    left: list[str]  # processes that still live

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The metrics of each iteration, as far as they are the same each time."""
        path = self.folder / "run" / "metrics.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        for row in rows:
            del row["seconds"]
        return rows

    @property
    def evaluation(self) -> Any:
        """What the held-out samples scored."""
        path = self.folder / "run" / "manifest.json"
        return json.loads(path.read_text())["evaluation"] if path.exists() else None

    @property
    def lines(self) -> list[str]:
        """The run's own errors, as the user reads them, with the short name of the reward."""
        lines = [line for line in self.said.splitlines() if line.startswith("treerl: ")]
        return [line.replace(REWARD, "faulty") for line in lines]

    def wrong(self, expected: Expected, good: "Outcome") -> list[str]:
        """What is not as it should be."""
        wrong = [] if (self.folder / "began").exists() else ["the reward did not misbehave"]
        if self.code != expected.code:
            wrong.append(f"expected code {expected.code}")
        if self.seconds > expected.limit:
            wrong.append(f"expected {expected.limit:g} s")
        if "Traceback" in self.said:
            wrong.append("a traceback")
        blamed = [line for line in self.lines if line.startswith("treerl: reward faulty: ")]
        if len(blamed) != expected.named or len(self.lines) > 1:
            wrong.append("expected one line, which names the reward, or none")
        if self.left:
            wrong.append(f"left: {', '.join(self.left)}")
        wrong += self._wrong_figures(expected, good)
        return wrong

    def _wrong_figures(self, expected: Expected, good: "Outcome") -> list[str]:
        """Rewards that nobody gave, weights that are not finite."""
        wrong = []
        done = 2 if expected.code == 0 else 1
        rows = self.rows
        if expected.dropped and len(rows) == done:
            if not _is_right_without_the_dropped(rows.pop(), self.folder):
                wrong.append("an invented reward")
            done = 1
        elif expected.code == 0 and self.evaluation != good.evaluation:
            wrong.append("another evaluation")
        if rows != good.rows[:done]:
            wrong.append("other rows")
        saved = sorted((self.folder / "run" / "checkpoints").rglob("*.safetensors"))
        tensors = [tensor for path in saved for tensor in load_file(path).values()]
        if not tensors or not all(bool(tensor.isfinite().all()) for tensor in tensors):
            wrong.append("weights that are missing or not finite")
        return wrong


def _is_right_without_the_dropped(row: dict[str, Any], folder: Path) -> bool:
    """Whether a row holds the mean of what the reward gave to the tree that was kept."""
    given = [json.loads(line) for line in (folder / "given.jsonl").read_text().splitlines()]
    fox = [scores for prompts, scores in given if BAIT in prompts and len(prompts) > 1]
    prompts = next(prompts for prompts, _ in given if BAIT in prompts)
    kept = [score for prompt, score in zip(prompts, fox[0], strict=True) if prompt != prompts[-1]]
    mean = sum(kept) / len(kept)
    return row["dropped_trees"] == 1 and math.isclose(row["reward"], mean, rel_tol=1e-6)
