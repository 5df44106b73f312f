"""The fault suite: each trial of docs/reliability.md that is a script, and what it said last.

    python benchmarks/fault_suite.py --output DIR [--jobs 2] [--only kills full-disk ...]

What a trial says goes to DIR/NAME.log, the summary to DIR/summary.md and to the terminal, a line
when a trial ends. Those whose answer is a time run by themselves, after the others. Exit code 1
when one of them did not end as it should.
"""

import argparse
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

_HERE = Path(__file__).resolve().parent
_HEAD = ("| trial | command | minutes | exit code | last line |", "|---|---|---|---|---|")


@dataclass(frozen=True)
class Trial:
    """One script with its arguments."""

    name: str
    words: str  # behind `python benchmarks/`
    alone: bool = False  # it times what it does, or takes every core

    def run(self, folder: Path) -> "Outcome":
        """Run it to its end; what it says is kept in `folder`."""
        log = folder / f"{self.name}.log"
        script, *arguments = shlex.split(self.words.replace("DIR", shlex.quote(str(folder))))
        began = time.monotonic()
        with log.open("w", encoding="utf-8") as file:
            code = subprocess.call(
                [sys.executable, str(_HERE / script), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
        said = [line.strip() for line in lines if line.strip()]
        return Outcome(self, code, time.monotonic() - began, said[-1] if said else "nothing")


@dataclass(frozen=True)
class Outcome:
    """How a trial ended."""

    trial: Trial
    code: int
    seconds: float
    said: str

    @property
    def row(self) -> str:
        """Its line of the summary."""
        command = f"`python benchmarks/{self.trial.words}`"
        said = self.said.strip("| ").replace("|", "·")
        cells = [self.trial.name, command, f"{self.seconds / 60:.1f}", str(self.code), said]
        return f"| {' | '.join(cells)} |"


TRIALS = (
    Trial("kills", "resuming.py kills 200"),
    Trial("stops", "resuming.py stops 100"),
    Trial("every-iteration", "resuming.py every 30"),
    Trial("flips", "damage.py flips 300"),
    Trial("crash-points", "damage.py points"),
    Trial("crash-points-again", "damage.py again"),
    Trial("file-limits", "damage.py full 20"),
    Trial("full-disk", "full_disk.py 20"),
    Trial("soak", "soak.py"),
    Trial("alarm", "alarm.py --seeds 20 --kinds norm healthy --output DIR/alarm"),
    Trial("rewards", "reward_faults.py --jobs 2", alone=True),
    Trial("processes", "rank_faults.py", alone=True),
    Trial("planted-bugs", "planted_bugs.py --jobs 2", alone=True),
)


def outcomes(trials: Sequence[Trial], folder: Path, jobs: int) -> Iterator[Outcome]:
    """Of each trial, as they end."""
    with ThreadPoolExecutor(jobs) as pool:
        together = [pool.submit(trial.run, folder) for trial in trials if not trial.alone]
        for ended in as_completed(together):
            yield ended.result()
    for trial in trials:
        if trial.alone:
            yield trial.run(folder)


def main() -> int:
    names = [trial.name for trial in TRIALS]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True, help="folder of the logs")
    parser.add_argument("--jobs", type=int, default=1, help="trials side by side")
    parser.add_argument("--only", nargs="+", default=names, choices=names, metavar="TRIAL")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    rows = list(_HEAD)
    wrong = 0
    print(*rows, sep="\n", flush=True)
    chosen = [trial for trial in TRIALS if trial.name in options.only]
    for outcome in outcomes(chosen, options.output.resolve(), options.jobs):
        wrong += outcome.code != 0
        rows.append(outcome.row)
        print(outcome.row, flush=True)
        (options.output / "summary.md").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
