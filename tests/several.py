"""Runs of a small world in one process or several, and what each process saw of them."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import processes
import torch
from plain import Always, PlainRewards
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed import FileStore  # type: ignore[attr-defined]

import treerl
from treerl.engine.algorithm import Algorithm
from treerl.engine.baseline import Siblings
from treerl.engine.branching import window
from treerl.engine.peers import Peers
from treerl.engine.selection import Share
from treerl.engine.selections.contrast import Contrast
from treerl.engine.trainer import Trainer
from treerl.run.join import connect
from treerl.run.world import World

_SCHEDULE = treerl.Flow.linear(6)
_BASE = Algorithm(branching=Always(window(6, 1, 3, 2)), trees_per_prompt=2, optimizer_steps=2)
ALGORITHMS = {
    "uneven": replace(_BASE, trees_per_prompt=1),
    "idle": replace(_BASE, trees_per_prompt=1),
    "dropped": _BASE,
    "depths": replace(_BASE, baseline=Siblings(), reduction="depths", ppo_epochs=2),
    "compared": replace(_BASE, trees_per_prompt=4, selection=Contrast(0.5)),
    "edges": replace(_BASE, selection=Share(0.5), reduction="edges"),
    "granular": replace(_BASE, trees_per_prompt=1, granularities=(1, 1)),
}
_SMOOTH = Path(__file__).parent / "smooth.py"
LORA: dict[str, object] = {
    "recipe": "treegrpo",
    "backbone.name": "sd35",
    "backbone.model": "miniature",
    "rewards": {f"{_SMOOTH}:Bright": 1.0, f"{_SMOOTH}:Warm": 0.5},
    "data.builtin": "shapes",
    "objective.kl": 0.1,
    "train.prompts_per_iteration": 3,
    "train.micro_batch_size": 4,
    "env.steps": 4,
    "tree.branching.depth": 2,
    "tree.branching.branching_factor": 2,
    "evaluate.max_prompts": 5,
    "evaluate.samples_per_prompt": 2,
    "evaluate.steps": 4,
}


class Plane(treerl.Env):
    """A flow on the plane whose velocity is a small network's."""

    steps, shape = _SCHEDULE.steps, (2,)
    sde = treerl.FlowSDE(0.7).coefficients(_SCHEDULE)
    ode = treerl.ODE().coefficients(_SCHEDULE)

    def __init__(self) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.net = nn.Sequential(nn.Linear(3, 16), nn.SiLU(), nn.Linear(16, 2))
        self.unused = nn.Parameter(torch.ones(3))

    def policy(self, state: treerl.State, stochastic: bool) -> treerl.Gaussian:
        time = _SCHEDULE.time[state.step].float()[:, None]
        velocity = self.net(torch.cat([state.x, time], dim=1))
        coefficients = self.sde if stochastic else self.ode
        return coefficients.gaussian(state.x, velocity, state.step)


class Recording(torch.optim.SGD):
    """Gradient descent that keeps the gradients of every step."""

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        super().__init__(parameters, lr=0.05)
        self.kept: list[Tensor] = []

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for parameter in self.param_groups[0]["params"]:
            if parameter.grad is not None:
                self.kept.append(parameter.grad.clone())
        super().step(closure)


def near(samples: treerl.Samples) -> Tensor:
    return -(samples.images.double() - 1).square().sum(1).sqrt()


def _left(samples: treerl.Samples) -> Tensor:
    return -samples.images[:, 0].double()


def _blind(samples: treerl.Samples) -> Tensor:
    """No score where the sample lies far to the left."""
    score = near(samples)
    return torch.where(samples.images[:, 0] < -1.0, torch.nan, score)


def _compared(samples: treerl.Samples) -> Tensor:
    """How much nearer a sample is than the others of its prompt."""
    score = near(samples)
    for group in set(samples.group.tolist()):
        score[samples.group == group] -= score[samples.group == group].mean()
    return score


def scenario(name: str, peers: Peers) -> dict[str, Tensor]:
    """Two iterations, and what this process knows of them."""
    if name == "lora":
        return _lora(peers)
    env = Plane()
    parameters = [*env.net.parameters(), env.unused]
    optimizer = Recording(parameters)
    nearest = {"dropped": _blind, "compared": _compared}.get(name, near)
    functions = {"near": nearest, "left": _left}
    rewards = PlainRewards(functions, (1.0, 0.3))
    trainer = Trainer(env, rewards, ALGORITHMS[name], optimizer, 4, max_grad_norm=1e9, peers=peers)
    tasks = [None] * (1 if name == "idle" else 3)
    return _told(trainer, [trainer.iterate(tasks) for _ in range(2)], optimizer.kept)


def _lora(peers: Peers) -> dict[str, Tensor]:
    session = treerl.assemble(settings=LORA, allow_plugins=True)
    session.trainer.peers = peers
    told: dict[str, Tensor] = {}
    for when in ("before", "after"):
        evaluation = session.evaluate()
        told |= {f"{when}.total": evaluation.total, f"{when}.scores": evaluation.scores}
        told |= {f"{when}.{name}": torch.tensor(x) for name, x in evaluation.quality.items()}
        told[f"shown.{when}"] = torch.tensor(len(evaluation.samples))
        if when == "before":
            told |= _told(session.trainer, list(session.train(2)), [])
    return told


def _told(
    trainer: Trainer, steps: Sequence[treerl.Step], gradients: list[Tensor]
) -> dict[str, Tensor]:
    told = {f"gradient.{number}": tensor for number, tensor in enumerate(gradients)}
    for number, parameter in enumerate(trainer.optimizer.param_groups[0]["params"]):
        told[f"weight.{number}"] = parameter.detach().clone()
    first = steps[0]
    tree = first.tree
    for name in ("task", "parent", "log_prob", "stochastic", "step", "key"):
        told[f"tree.{name}"] = getattr(tree, name)
    told["tree.scores"] = first.scores
    told["tree.advantage"] = first.advantages.advantage
    told["tree.values"] = first.advantages.values
    here = tree.here(tree.leaves)
    told["here"] = here
    told["latents"] = tree.at(here).x.cpu()
    for number, step in enumerate(steps):
        for name, value in step.metrics.items():
            if isinstance(value, int | float):
                told[f"metric.{number}.{name}"] = torch.tensor(value, dtype=torch.float64)
    return told


def alone(name: str) -> dict[str, Tensor]:
    return scenario(name, World())


def together(names: Sequence[str], size: int, folder: Path) -> dict[str, list[dict[str, Tensor]]]:
    """The scenarios in `size` processes; what each rank saw, by scenario."""
    folder.mkdir()
    processes.together(_process, (size, str(folder), tuple(names)), size)
    told: dict[str, list[dict[str, Tensor]]] = {}
    for name in names:
        told[name] = [load_file(folder / f"{name}.{rank}") for rank in range(size)]
    return told


def _process(rank: int, size: int, folder: str, names: Sequence[str]) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    world = connect(FileStore(f"{folder}/store", size), rank, size, timeout=100)
    for name in names:
        told = scenario(name, world)
        copies = {
            key: tensor.clone(memory_format=torch.contiguous_format) for key, tensor in told.items()
        }
        save_file(copies, Path(folder, f"{name}.{rank}"))
    world.close()


def begins(told: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The entries whose names begin so."""
    return {name: tensor for name, tensor in told.items() if name.startswith(prefix)}
