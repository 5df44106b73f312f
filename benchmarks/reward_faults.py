"""Misbehaviour of a reward, on purpose, in each place where a reward runs: what comes of it.

    python benchmarks/reward_faults.py                               24 misbehaviours in 3 places
    python benchmarks/reward_faults.py --only hangs "sets worker"    those that are called so
    python benchmarks/reward_faults.py --jobs 2                      so many runs side by side

Each case is a `treerl run` of two iterations on a model of two linear layers, whose reward
(`faulty_reward.py`) misbehaves in the second. `docs/rewards.md` says what is right then; a run
whose reward behaves says which rewards are right.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import psutil  # type: ignore[import-untyped]
from faulty_reward import ANSWERING, SILENT
from reward_outcomes import DEADLINE, DROPPED, LAG, REWARD, SENT, Expected, Outcome

PLACES = ("process", "worker", "remote")
_STARTING = 300.0  # seconds for a run or a server to be imported, on a busy machine
_ENDING = 120.0  # seconds that a run may take from then on
_TESTS = Path(__file__).parents[1] / "tests"
_PROMPTS = "a cat\na dog\na fox\na bear\n"
_SETTINGS = (
    "recipe=treegrpo",
    "backbone.name=./plain_torch.py:Points",
    "data.train=prompts.txt",
    "data.heldout=prompts.txt",
    "train.prompts_per_iteration=2",
    "train.iterations=2",
    "train.save_every=1",
    "train.trainable=full",
    "train.optimizer_steps=1",
    "env.steps=4",
    "tree.branching.depth=1",
    "tree.branching.branching_factor=2",
    "evaluate.max_prompts=2",
    f"scoring.timeout={DEADLINE:g}",
)


def tried(fault: str, place: str, folder: Path) -> Outcome:
    """One run whose reward misbehaves so, in a folder of its own."""
    folder.mkdir()
    shutil.copy(_TESTS / "plain_torch.py", folder)
    (folder / "prompts.txt").write_text(_PROMPTS)
    mark = {"FAULT": fault, "FAULT_FOLDER": str(folder), "FAULT_DEADLINE": str(DEADLINE)}
    variables = {**os.environ, **mark, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    if place == "remote":
        with _served(folder, variables) as url:
            outcome = _run(folder, variables, url)
    else:
        outcome = _run(folder, variables, place)
    end = time.monotonic() + LAG
    while (left := _living(mark)) and time.monotonic() < end:
        time.sleep(0.1)
    names = []
    for process in left:
        with suppress(psutil.Error):  # it has just ended
            names.append(" ".join(process.cmdline())[:80])
            process.kill()
    return replace(outcome, left=names)


def _set(setting: str) -> str:
    return f"--set={setting}"


def _run(folder: Path, variables: dict[str, str], executor: str) -> Outcome:
    """The run to its end, which a signal brings where the documentation knows no other."""
    command = [sys.executable, "-m", "treerl", "run", "--output", "run", "--allow-plugins"]
    command += ["--reward", REWARD, _set(f"scoring.executor={executor}")]
    command += [_set(setting) for setting in _SETTINGS]
    if variables["FAULT"] == DROPPED:
        command.append(_set("scoring.on_bad_reward=drop_tree"))
    with (folder / "stdout").open("wb") as out, (folder / "stderr").open("wb") as err:
        run = subprocess.Popen(command, cwd=folder, env=variables, stdout=out, stderr=err)
    began = _waited_for(folder / "began", run)
    number = SENT.get(variables["FAULT"]) if executor == "process" else None
    if number is not None:
        time.sleep(DEADLINE)
        run.send_signal(number)
    try:
        code = run.wait(_ENDING)
    except subprocess.TimeoutExpired:
        run.kill()
        code = run.wait()
    words = max((folder / name).stat().st_mtime for name in ("stdout", "stderr"))
    last = words if words > began else time.time()  # one that dies says nothing any more
    return Outcome(code, last - began, (folder / "stderr").read_text(errors="replace"), folder, [])


def _waited_for(mark: Path, run: "subprocess.Popen[bytes]") -> float:
    """When the misbehaviour began; now, when the run has ended without it."""
    end = time.monotonic() + _STARTING
    while not (mark.exists() and mark.read_text()):
        if run.poll() is not None or time.monotonic() > end:
            return time.time()
        time.sleep(0.02)
    return float(mark.read_text())


@contextmanager
def _served(folder: Path, variables: dict[str, str]) -> Iterator[str]:
    """While inside, the reward is behind the address that this yields."""
    command = [sys.executable, "-m", "treerl", "serve-reward", REWARD, "--port", "0"]
    command += ["--allow-plugins", _set(f"scoring.timeout={DEADLINE:g}")]
    with (folder / "server").open("wb") as log:
        server = subprocess.Popen(
            command, cwd=folder, env=variables, stdout=subprocess.PIPE, stderr=log, text=True
        )
    assert server.stdout is not None
    try:
        line = server.stdout.readline()
        if " on http" not in line:
            sys.exit(f"no server: {(folder / 'server').read_text(errors='replace')}")
        yield line.split(" on ")[1].split()[0]
        if server.poll() is not None:
            sys.exit(f"the server has ended: {(folder / 'server').read_text(errors='replace')}")
    finally:
        server.terminate()
        server.wait()
        server.stdout.close()


def _living(mark: dict[str, str]) -> list[psutil.Process]:
    """The processes of the case with these variables."""
    living = []
    for process in psutil.process_iter():
        try:
            if mark.items() <= process.environ().items():
                living.append(process)
        except (psutil.Error, OSError):
            continue
    return living


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", default=[""], help="words of a case, as it is printed")
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side")
    options = parser.parse_args()
    cases = []
    for fault in (*SILENT, *ANSWERING):
        for place in PLACES:
            if any(words in f"{fault} {place}" for words in options.only):
                cases.append((fault, place))
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(options.jobs) as pool:
        good = tried("none", "process", Path(name, "good"))
        if good.code != 0:
            sys.exit(f"the run without a fault: code {good.code}, {good.said}")

        def report(case: tuple[str, str]) -> bool:
            fault, place = case
            outcome = tried(fault, place, Path(name, f"{fault}-{place}"))
            wrong = outcome.wrong(Expected.of(fault, place), good)
            mark = "WRONG" if wrong else "ok   "
            figures = f"code {outcome.code:3d}, {outcome.seconds:4.1f} s"
            print(
                f"{mark} {fault:<11} {place:<8} {figures} {' '.join(outcome.lines)}",
                *wrong,
                sep=" | ",
                flush=True,
            )
            return not wrong

        right = sum(pool.map(report, cases))
    print(f"{right} of {len(cases)}")
    sys.exit(right < len(cases))


if __name__ == "__main__":
    main()
