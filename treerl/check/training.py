"""Whether a backbone can be trained: its gradients, its ratio on replay, its saved weights."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from treerl.backbone import lora
from treerl.backbone.contract import Backbone
from treerl.backbone.env import BackboneEnv
from treerl.check.finding import check
from treerl.check.subject import ROWS, STEPS, Subject, apart, environment
from treerl.engine import noise
from treerl.engine.branching import window
from treerl.engine.grow import grow
from treerl.engine.roots import make_roots
from treerl.engine.tree import Tree

Result = tuple[bool, str]
_SHAKE = 0.05  # how far weights are moved from where they start
_LENGTHS = (2e-2, 1e-3, 2e-4)  # of steps that measure a slope: a curve bends, rounding hides it


@check("predict must give the same values for the same rows, whatever else happened before")
def replay(subject: Subject) -> Result:
    """The ratio on replay is 1 to rounding, with as many rows as the rollout had and with fewer."""
    env = environment(subject)
    keys = [noise.key(0, row) for row in range(ROWS)]
    tree = grow(env, make_roots(keys, 1), window(STEPS, 0, 2, 2), ROWS)
    gaps = {}
    with torch.no_grad():
        for rows in (ROWS, 2):
            parts = torch.split(tree.edges, rows)
            scored = torch.cat([_scored(env, tree, part) for part in parts])
            gaps[rows] = float((scored - tree.log_prob[tree.edges]).exp().sub(1).abs().max())
    # Not 0: a row stands in another place of its batch, where some processors round differently.
    # How far rounding moves a ratio per dimension grows with the error over the std of the step.
    good = max(gaps.values()) <= 1e-6
    return good, f"deviation {gaps[ROWS]:.1e}, with other rows {gaps[2]:.1e}"


@check("name the linear layers of this denoiser in lora_targets, or train.trainable=full", True)
def trainable(subject: Subject) -> Result:
    """What train.trainable names is there to train, and changes nothing before it is trained."""
    backbone = subject.make()
    with torch.no_grad():
        before = subject.predict(backbone)
        parameters = lora.attach(backbone, subject.trainable, None, seed=0)
        after = subject.predict(backbone)
    text = f"{len(parameters)} tensors ({subject.trainable.mode}), difference "
    same = torch.equal(before, after)
    return bool(parameters) and same, text + f"{apart(before, after):.1e}"


@check("something detaches the prediction, or parameters are not frozen")
def gradients(subject: Subject) -> Result:
    """Gradients reach what trains and counts, and nothing that is frozen."""
    backbone = subject.make()
    parameters = _shaken(backbone, subject)
    subject.predict(backbone).square().sum().backward()  # type: ignore[no-untyped-call]
    missed = [p for p in parameters if p.grad is None or not bool(p.grad.any())]
    with torch.no_grad():
        now = subject.predict(backbone)
        needed = [p for p in missed if not torch.equal(now, _moved(subject, backbone, p))]
    known = {id(parameter) for parameter in parameters}
    touched = []
    for module in backbone.denoisers.values():
        for parameter in module.parameters():
            if id(parameter) not in known and parameter.grad is not None:
                touched.append(parameter)
    idle = f", {len(missed)} that nothing depends on" if missed else ""
    text = (
        f"{len(parameters)} tensors{idle}; {len(needed)} without a gradient, "
        f"{len(touched)} frozen ones with one"
    )
    return not needed and not touched and len(missed) < len(parameters) / 2, text


@check("predict returns something else than its gradient belongs to: see detach() and no_grad()")
def slope(subject: Subject) -> Result:
    """The gradient is the slope: a small step along it changes the prediction as it says."""
    backbone = subject.make()
    parameters = _shaken(backbone, subject)
    probe = subject.draws(1)
    # without guidance, whose other half is a constant by design
    loss = (subject.predict(backbone, guidance=1.0) * probe).mean()
    loss.backward()  # type: ignore[no-untyped-call]
    steps = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in parameters]
    norm = float(torch.stack([step.norm() for step in steps]).norm())
    measured = []
    with torch.no_grad():
        for length in _LENGTHS:
            values = []
            for sign in (1, -2, 1):  # there, to the other side, and back
                for parameter, step in zip(parameters, steps, strict=True):
                    parameter.add_(step, alpha=sign * length / max(norm, 1e-30))
                predicted = subject.predict(backbone, guidance=1.0)
                values.append(float((predicted.double() * probe.double()).mean()))
            measured.append((values[0] - values[1]) / (2 * length))
    nearest = min(measured, key=lambda slope: abs(slope - norm))
    good = abs(nearest - norm) <= 0.05 * norm
    return good, f"gradient {norm:.4g}, measured slope {nearest:.4g}"


@check("see denoisers (the component names), save and restore")
def saved(subject: Subject) -> Result:
    """What is saved is what is restored."""
    first = subject.make()
    second = subject.make()
    _shaken(first, subject)
    with TemporaryDirectory() as folder, torch.no_grad():
        first.save(Path(folder))
        lora.attach(second, subject.trainable, Path(folder), seed=1)
        gap = apart(subject.predict(first), subject.predict(second))
    return gap == 0, f"difference {gap:.1e}"


TRAINING = (replay, trainable, gradients, slope, saved)


def _scored(env: BackboneEnv, tree: Tree, edges: Tensor) -> Tensor:
    policy = env.policy(tree.at(tree.parent[edges]), stochastic=True)
    return policy.log_prob(tree.at(edges).x.to(env.device)).double().cpu()


def _shaken(backbone: Backbone, subject: Subject) -> list[nn.Parameter]:
    """What trains, moved from where it starts: a fresh LoRA has B = 0, which hides A's gradient."""
    parameters = lora.attach(backbone, subject.trainable, None, seed=0)
    with torch.no_grad():
        for number, parameter in enumerate(parameters):
            keys = noise.key(2, number)
            draw = noise.normal(keys, parameter.shape, torch.float32, parameter.device)
            # whole weights are moved by a part of themselves, lest the model break
            scale = 1.0 if subject.trainable.mode == "lora" else float(parameter.abs().mean())
            parameter.add_(draw[0], alpha=_SHAKE * scale)
    return parameters


def _moved(subject: Subject, backbone: Backbone, parameter: nn.Parameter) -> Tensor:
    with _shifted(parameter):
        return subject.predict(backbone)


@contextmanager
def _shifted(parameter: nn.Parameter) -> Iterator[None]:
    kept = parameter.detach().clone()
    parameter.add_(1.0)
    try:
        yield
    finally:
        parameter.copy_(kept)
