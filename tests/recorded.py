"""A small run on a world of images, kept by the real writer, to test folder and page with."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from treerl.check.world import World
from treerl.engine.branching import Fixed
from treerl.engine.recipes import recipes
from treerl.engine.step import Step
from treerl.engine.task import Samples, Task
from treerl.engine.trainer import Trainer
from treerl.engine.tree import State
from treerl.reward.call import Scorer
from treerl.reward.contract import Reward
from treerl.reward.rewards import Rewards
from treerl.run.claim import claim
from treerl.run.evaluate import Evaluation, evaluate
from treerl.run.files import Manifest, Status
from treerl.run.folder import RunFolder

CONFIG = """\
recipe: treegrpo
backbone: {name: world, model: tiny}
rewards:
  blue: {weight: 1.0}
  dark: {weight: 0.25}
"""
PLAN = {"iterations": 4, "leaves": 64, "edges": 112.5, "optimizer_steps": 8}
TASKS = tuple(Task(f"a blue shape, number {number}") for number in range(3))


class ImageWorld(World):
    """A finished state is shown as a disc whose colour, place and size it says."""

    def samples(self, state: State) -> Samples:
        plain = super().samples(state)
        return Samples(draw(plain.images), plain.tasks, plain.group)


def draw(x: Tensor, size: int = 24) -> Tensor:
    """Discs `[N, 3, size, size]` of latents `[N, 4]`."""
    place = torch.linspace(-1, 1, size)
    centre = torch.tanh(x[:, 3])[:, None, None] / 2
    radius = (place[:, None] ** 2 + (place - centre) ** 2).sqrt()
    inside = (radius < 0.55).float()[:, None]
    colour = torch.sigmoid(x[:, :3])[:, :, None, None]
    return inside * colour + (1 - inside) * 0.9


class Blue(Reward):
    """More blue than red in the middle."""

    def __call__(self, samples: Samples) -> Tensor:
        middle = samples.images[:, :, 10:14, 10:14].double().mean((2, 3))
        return middle[:, 2] - middle[:, 0]

    def measures(self, samples: Samples) -> dict[str, Tensor]:
        return {"right": (self(samples) > 0).double()}


def dark(samples: Samples) -> Tensor:
    """How dark the image is."""
    return 1 - samples.images.double().mean((1, 2, 3))


@dataclass
class Recorded:
    """A run folder, and what was written into it."""

    folder: RunFolder
    manifest: Manifest
    before: Evaluation
    after: Evaluation | None = None
    first: Step | None = None
    last: Step | None = None
    rows: list[dict[str, Any]] = field(default_factory=list)

    @property
    def path(self) -> Path:
        return self.folder.path


def create(output: Path | None, recipe: str) -> RunFolder:
    """A new run folder."""
    return RunFolder(claim(output, recipe).path)


def manifest() -> Manifest:
    """What is known when a run starts."""
    return Manifest(
        run="0" * 32,
        treerl="0.2.0",
        command=["treerl", "run", "--seed", "3"],
        started="2026-11-20T21:00:00Z",
        seed=3,
        versions={"python": "3.11.7", "torch": "2.13.0"},
        device="cpu",
        threads=1,
        plan=dict(PLAN),
        trainable_parameters=16,
        prompts={"train": 2, "heldout": 3},
    )


def record(
    folder: RunFolder,
    iterations: int = 4,
    every: int = 2,
    status: Status = "done",
    env: World | None = None,
    samples_per_task: int = 2,
) -> Recorded:
    """Train the small world and write everything that a run writes."""
    env = env or ImageWorld()
    images = isinstance(env, ImageWorld)
    scorers: dict[str, Scorer] = {"sum": _sum}
    if images:
        scorers = {"blue": Blue(), "dark": dark}
    rewards = Rewards(scorers, weights={"dark": 0.25} if images else None)
    branching = Fixed(branching_factor=2, depth=3, start=1)
    algorithm = replace(recipes["treegrpo"], branching=branching)
    optimizer = torch.optim.Adam([env.weight], lr=0.05)
    trainer = Trainer(env, rewards, algorithm, optimizer, seed=3)

    def held_out() -> Evaluation:
        watched = Rewards({"dark": dark}) if images else None
        return evaluate(env, rewards, TASKS, samples_per_task, watched, seed=3)

    run = Recorded(folder, manifest(), held_out())
    folder.write_config(CONFIG)
    folder.write_before(run.before)
    run.manifest.evaluation["before"] = run.before.summary()
    for iteration in range(1, iterations + 1):
        step = trainer.iterate(TASKS[:2])
        row = {"iteration": iteration, **step.metrics, "seconds": 0.25}
        if every and iteration % every == 0:
            row["heldout"] = held_out().summary()
        folder.append_metrics(row)
        run.rows.append(row)
        run.first = run.first or step
        run.last = step
    if run.first is not None and run.last is not None:
        folder.write_tree("first", run.first, rewards.weights)
        folder.write_tree("last", run.last, rewards.weights)
    if status == "done":
        run.after = held_out()
        folder.write_after(run.after)
        run.manifest.evaluation["after"] = run.after.summary()
    run.manifest.status = status
    run.manifest.plan["iterations"] = iterations
    run.manifest.spent = {**PLAN, "iterations": iterations, "seconds": 0.25 * iterations}
    run.manifest.seconds = {"evaluate": 1.5, "train": 0.25 * iterations}
    folder.write_manifest(run.manifest)
    return run


def _sum(samples: Samples) -> Tensor:
    return samples.images.double().sum(1)


def pixels(path: Path) -> Tensor:
    """The levels `[3, H, W]` of an image file."""
    with Image.open(path) as image:
        values = torch.tensor(list(image.tobytes()), dtype=torch.float32)
        return values.reshape(image.height, image.width, 3).permute(2, 0, 1)
