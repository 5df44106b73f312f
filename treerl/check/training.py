"""Whether a backbone can be trained: its LoRA, its gradients, its ratio on replay, its saved weights."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from treerl.backbone import lora
from treerl.backbone.contract import Backbone
from treerl.check.finding import check
from treerl.check.subject import PROMPTS, ROWS, STEPS, Subject, apart, environment
from treerl.engine import noise
from treerl.engine.branching import window
from treerl.engine.env import PromptedEnv
from treerl.engine.grow import grow, plant
from treerl.engine.tree import Tree

_SMALL = lora.Trainable(rank=2, alpha=2)


@check("name the linear layers of this denoiser in lora_targets")
def lora_targets(one: Subject) -> tuple[bool, str]:
    """A fresh LoRA finds its layers and changes nothing."""
    backbone = one.make()
    with torch.no_grad():
        before = one.predict(backbone)
        trained = lora.attach(backbone, _SMALL, None, seed=0)
        after = one.predict(backbone)
    return bool(trained) and bool(
        torch.equal(before, after)
    ), f"{len(trained) // 2} layers, difference {apart(before, after):.1e}"


@check("something detaches the prediction, or parameters are not frozen")
def gradients(one: Subject) -> tuple[bool, str]:
    """Gradients reach every LoRA pair that the prediction depends on, and nothing that is frozen."""
    backbone = one.make()
    trained = _shaken(backbone)
    one.predict(backbone).square().sum().backward()  # type: ignore[no-untyped-call]
    with torch.no_grad():
        now = one.predict(backbone)
        missed = [p for p in trained if p.grad is None or not bool(p.grad.any())]
        needed = [p for p in missed if not torch.equal(now, _moved(one, backbone, p))]
    known = {id(parameter) for parameter in trained}
    touched = [
        p
        for module in backbone.denoisers.values()
        for p in module.parameters()
        if id(p) not in known and p.grad is not None
    ]
    dead = f", {len(missed)} that nothing depends on" if missed else ""
    found = f"{len(trained)} LoRA matrices{dead}; {len(needed)} without a gradient, {len(touched)} frozen weights with one"
    return not needed and not touched and len(missed) < len(trained) / 2, found


@check(
    "predict returns something else than what its gradient belongs to: look for detach() and no_grad()"
)
def slope(one: Subject) -> tuple[bool, str]:
    """The gradient is the slope: a small step along it changes the prediction as much as it says."""
    backbone, free = one.make(), Subject(one.make, one.backbone, one.condition, one.x, 1.0)
    trained = _shaken(backbone)
    probe = noise.normal(
        noise.children(noise.key(1), ROWS), backbone.shape, torch.float32, backbone.device
    )
    (free.predict(backbone) * probe).mean().backward()  # type: ignore[no-untyped-call]
    steps = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in trained]
    norm = float(torch.stack([step.norm() for step in steps]).norm())
    values = []
    with torch.no_grad():
        for sign in (1, -2):
            for parameter, step in zip(trained, steps, strict=True):
                parameter.add_(step, alpha=sign * 2e-2 / norm)
            values.append(float((free.predict(backbone).double() * probe.double()).mean()))
    measured = (values[0] - values[1]) / 4e-2
    return abs(measured / norm - 1) <= 0.05, f"gradient {norm:.4g}, measured slope {measured:.4g}"


@check("see denoisers (the component names) and pipeline")
def saved(one: Subject) -> tuple[bool, str]:
    """What is saved is what is restored."""
    first, second = one.make(), one.make()
    _shaken(first)
    with TemporaryDirectory() as folder, torch.no_grad():
        first.save(Path(folder))
        lora.attach(second, _SMALL, Path(folder), seed=1)
        gap = apart(one.predict(first), one.predict(second))
    return gap == 0, f"difference {gap:.1e}"


@check("predict must give the same bits for the same rows, whatever else happened before")
def replay(one: Subject) -> tuple[bool, str]:
    """The ratio on replay is exactly 1 with the same number of rows, and 1 to rounding with others."""
    env = environment(one)
    keys = [noise.key(0, row) for row in range(len(PROMPTS))]
    tree = grow(env, plant(keys, 1), window(STEPS, 0, 2, 2), ROWS)
    gaps = {}
    with torch.no_grad():
        for rows in (ROWS, 2):
            scored = torch.cat([_scored(env, tree, part) for part in torch.split(tree.edges, rows)])
            gaps[rows] = float((scored - tree.log_prob[tree.edges]).exp().sub(1).abs().max())
    # how far rounding moves a ratio per dimension grows with the error over the std of the step
    return gaps[ROWS] == 0 and gaps[
        2
    ] <= 1e-6, f"deviation {gaps[ROWS]:.1e}, with other rows {gaps[2]:.1e}"


TRAINING = (lora_targets, gradients, slope, saved, replay)


def _scored(env: PromptedEnv, tree: Tree, edges: Tensor) -> Tensor:
    policy = env.policy(tree.at(tree.parent[edges]), stochastic=True)
    return policy.log_prob(tree.at(edges).x.to(env.device)).double().cpu()


def _shaken(backbone: Backbone) -> list[nn.Parameter]:
    """A small LoRA that is not zero: a fresh one has B = 0, which would hide A's gradient."""
    trained = lora.attach(backbone, _SMALL, None, seed=0)
    with torch.no_grad():
        for number, parameter in enumerate(trained):
            draw = noise.normal(
                noise.key(2, number), parameter.shape, torch.float32, parameter.device
            )
            parameter.add_(draw[0], alpha=0.05)
    return trained


def _moved(one: Subject, backbone: Backbone, parameter: nn.Parameter) -> Tensor:
    with _shifted(parameter):
        return one.predict(backbone)


@contextmanager
def _shifted(parameter: nn.Parameter) -> Iterator[None]:
    kept = parameter.detach().clone()
    parameter.add_(1.0)
    yield
    parameter.copy_(kept)
