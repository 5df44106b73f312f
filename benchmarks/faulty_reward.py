"""A reward that scores well and, when its fox comes, does the harm that `FAULT` names.

`reward_faults.py` beside this file lets it run in each place where a reward can run.
"""

import ctypes
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from treerl.engine.task import Samples
from treerl.reward.contract import Reward

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from misbehaving import BEHAVIOURS, LETHAL

BAIT = "a fox"  # a training prompt of the second iteration
OVERSLEPT = 1.0  # seconds that a slow answer comes after the deadline


def _crashes(images: Tensor, scores: Tensor) -> Tensor:
    """Reads where there is no memory, as broken compiled code does."""
    ctypes.string_at(0)
    return scores


def _oversleeps(images: Tensor, scores: Tensor) -> Tensor:
    time.sleep(float(os.environ["FAULT_DEADLINE"]) + OVERSLEPT)
    return scores


def _has_no_number(images: Tensor, scores: Tensor) -> Tensor:
    scores[-1] = torch.nan
    return scores


def _wants_memory(images: Tensor, scores: Tensor) -> Tensor:
    return torch.ones(2**50)


def _paints(images: Tensor, scores: Tensor) -> Tensor:
    images.zero_()
    return scores


def _sets(images: Tensor, scores: Tensor) -> Tensor:
    """Changes what the whole process shares."""
    os.chdir("/")
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    torch.set_num_threads(torch.get_num_threads() + 1)
    torch.set_grad_enabled(not torch.is_grad_enabled())
    return scores


def _seeds(images: Tensor, scores: Tensor) -> Tensor:
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)
    return scores


def _prints(images: Tensor, scores: Tensor) -> Tensor:
    print('{"protocol": 2, "ids": ["0"], "scores": [9]}', flush=True)
    os.write(1, b"\x00\xff\x1b[2J" * 64)
    return scores


def _closes(images: Tensor, scores: Tensor) -> Tensor:
    sys.stdout.close()
    with suppress(OSError):
        os.close(1)
    return scores


def _handles(images: Tensor, scores: Tensor) -> Tensor:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return scores


def _leaves_a_child(images: Tensor, scores: Tensor) -> Tensor:
    subprocess.Popen(["sleep", "3600"])
    return scores


def _leaves_a_thread(images: Tensor, scores: Tensor) -> Tensor:
    threading.Thread(target=time.sleep, args=(3600,)).start()
    return scores


# those of the tests that never answer
SILENT: dict[str, Callable[[Tensor], Any]] = {
    "raises": BEHAVIOURS["raises"][0],
    "exits": BEHAVIOURS["exits"][0],
    "interrupts": BEHAVIOURS["interrupts"][0],
    "dies": LETHAL["dies"],
    "hangs": LETHAL["hangs"],
    "hangs-in-c": LETHAL["hangs in C"],
}
ANSWERING: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "crashes": _crashes,
    "oversleeps": _oversleeps,
    "nan": _has_no_number,
    "huge": lambda images, scores: scores.double() * 1e200,
    "short": lambda images, scores: scores[1:],
    "complex": lambda images, scores: scores * 1j,
    "text": lambda images, scores: str(scores.tolist()),
    "sparse": lambda images, scores: scores.to_sparse(),
    "graph": lambda images, scores: scores.requires_grad_() * 1,
    "memory": _wants_memory,
    "paints": _paints,
    "sets": _sets,
    "seeds": _seeds,
    "prints": _prints,
    "closes": _closes,
    "handles": _handles,
    "child": _leaves_a_child,
    "thread": _leaves_a_thread,
}


class Faulty(Reward):
    """The brightness of an image, until the bait comes."""

    def __call__(self, samples: Samples) -> Tensor:
        scores = samples.images.flatten(1).mean(1)
        folder = Path(os.environ["FAULT_FOLDER"])
        with (folder / "given.jsonl").open("a") as file:
            file.write(json.dumps([samples.prompts, scores.tolist()]) + "\n")
        fault = os.environ["FAULT"]
        if BAIT not in samples.prompts or fault == "none":
            return scores
        began = folder / "began"
        if not began.exists():
            began.write_text(str(time.time()))
        if fault in SILENT:
            return SILENT[fault](samples.images)  # type: ignore[no-any-return]
        return ANSWERING[fault](samples.images, scores)  # type: ignore[no-any-return]
