"""Whether a backbone does what its contract says."""

from collections.abc import Iterator
from dataclasses import replace
from tempfile import TemporaryDirectory

import torch

from treerl import registry
from treerl.backbone import random_weights as architecture
from treerl.backbone.contract import Backbone, Condition
from treerl.backbone.pipeline import PipelineBackbone
from treerl.backbone.settings import PipelineSettings
from treerl.check.finding import Finding, check, run
from treerl.check.subject import (
    PROMPTS,
    ROWS,
    STEPS,
    TOLERANCE,
    Subject,
    apart,
    environment,
    subject,
)
from treerl.check.training import TRAINING
from treerl.config.schema import Config
from treerl.engine import noise
from treerl.engine.branching import ode
from treerl.engine.grow import grow, plant
from treerl.engine.task import Task
from treerl.errors import InputError
from treerl.run.run import device


@check("see shape, predict and decode")
def shapes(one: Subject) -> tuple[bool, str]:
    """Latents, predictions and samples have the shapes and dtypes of the contract."""
    with torch.no_grad():
        predicted, samples = one.predict(), one.backbone.decode(one.x, one.condition)
    dims = 5 if one.backbone.modality == "videos" else 4
    good = predicted.shape == one.x.shape and predicted.dtype == samples.dtype == torch.float32
    good &= samples.dim() == dims and len(samples) == ROWS and samples.shape[-3] == 3
    good &= bool(((samples >= 0) & (samples <= 1)).all())
    return (
        good,
        f"latents {tuple(one.x.shape)}, predictions {tuple(predicted.shape)}, samples {tuple(samples.shape)}",
    )


@check("pad texts to one length whatever the prompts, and mask the padding")
def texts_alone(one: Subject) -> tuple[bool, str]:
    """A prompt is encoded the same alone as among others."""
    alone = Condition.cat([one.backbone.encode([Task(prompt)]) for prompt in PROMPTS])
    if any(alone[name].shape != tensor.shape for name, tensor in one.condition.tensors.items()):
        return (
            False,
            f"another shape alone: {[(name, tuple(alone[name].shape)) for name in alone.tensors]}",
        )
    worst = max(
        apart(alone[name].float(), tensor.float()) for name, tensor in one.condition.tensors.items()
    )
    return worst <= TOLERANCE, f"relative difference {worst:.1e}"


@check("does predict hand the condition to the network, row by row?")
def texts_count(one: Subject) -> tuple[bool, str]:
    """Another prompt gives another prediction."""
    with torch.no_grad():
        swapped = Condition(
            {name: tensor[[1, 2, 0]] for name, tensor in one.condition.tensors.items()}
        )
        time = one.backbone.schedule(STEPS).time[[1] * ROWS].to(one.backbone.device)
        other = one.backbone.predict(one.x, time, swapped, one.guidance)
    moved = apart(one.predict().detach(), other)
    return moved > 1e-7, f"relative change {moved:.1e}"


@check("see schedule (the time argument and its unit) and predict")
def finite(one: Subject) -> tuple[bool, str]:
    """The prediction is finite at every step of the schedule."""
    with torch.no_grad():
        bad = [
            step for step in range(STEPS) if not bool(torch.isfinite(one.predict(step=step)).all())
        ]
    return not bad, f"not finite at steps {bad}" if bad else f"finite at all {STEPS} steps"


@check("something keeps a state between calls, or draws random numbers")
def repeats(one: Subject) -> tuple[bool, str]:
    """The same rows twice give the same bits, and under inference mode too."""
    with torch.no_grad():
        first, again = one.predict(), one.predict()
    with torch.inference_mode():
        third = one.predict()
    return bool(
        torch.equal(first, again) and torch.equal(first, third)
    ), f"difference {apart(first, again):.1e}"


@check("something is computed over the batch: see predict, and how time is passed")
def rows_alone(one: Subject) -> tuple[bool, str]:
    """A row does not depend on the others of its batch."""
    backbone, index = one.backbone, torch.tensor([0, 1, 2, 1, 0], device=one.x.device)
    time = backbone.schedule(STEPS).time[[0, 1, 2, 3, 1]].to(backbone.device)
    with torch.no_grad():
        together = backbone.predict(one.x[index], time, one.condition.take(index), one.guidance)
        rows = [
            backbone.predict(
                one.x[row][None], when[None], one.condition.take(row[None]), one.guidance
            )
            for row, when in zip(index, time, strict=True)
        ]
    worst = apart(together, torch.cat(rows))
    return (
        worst <= TOLERANCE,
        f"relative difference {worst:.1e} of 5 rows, at mixed steps, and the same one by one",
    )


@check(
    "a dropout or a batch norm is left in the denoiser: set its probability to 0 in the configuration"
)
def evaluation_mode(one: Subject) -> tuple[bool, str]:
    """Training mode changes nothing: no dropout, no batch statistics."""
    with torch.no_grad():
        before = one.predict()
        for module in one.backbone.denoisers.values():
            module.train()
        after = one.predict()
        for module in one.backbone.denoisers.values():
            module.eval()
    return bool(torch.equal(before, after)), f"difference {apart(before, after):.1e}"


@check(
    "draw nothing: noise is given to initial(), and the sampling of an autoencoder uses its mean"
)
def no_hidden_randomness(one: Subject) -> tuple[bool, str]:
    """Encoding, predicting and decoding draw nothing from torch's global generator."""
    before = torch.random.get_rng_state()
    with torch.no_grad():
        one.backbone.encode([Task(PROMPTS[0])])
        one.predict()
        one.backbone.decode(one.x[:1], one.condition.take(torch.tensor([0], device=one.x.device)))
    same = bool(torch.equal(before, torch.random.get_rng_state()))
    return same, "generator untouched" if same else "the global generator was used"


@check(
    "compare predict, schedule (shift, time unit, sign) and encode with the pipeline's own call, and arguments()"
)
def parity(one: Subject) -> tuple[bool, str]:
    """The deterministic rollout equals the pipeline's own call on the same latents, prompts, guidance and steps."""
    backbone = one.backbone
    if not isinstance(backbone, PipelineBackbone):
        return (
            True,
            "not tried: it is no PipelineBackbone, so its pipeline's arguments are not known",
        )
    worst = {}
    for guidance in dict.fromkeys((1.0, one.guidance)):
        env = environment(one, guidance)
        roots = plant([noise.key(0, row) for row in range(len(PROMPTS))], 1)
        tree = grow(env, roots, ode(STEPS), rows=ROWS)
        latents = noise.normal(roots.start, env.shape, torch.float32, backbone.device)
        tasks = [Task(prompt) for prompt in PROMPTS]
        given = tasks, backbone.initial(latents, one.condition), STEPS, guidance
        expected, samples = backbone.call(*given, "latent"), backbone.call(*given, "pt")
        leaves = tree.at(tree.leaves)
        # where the path differs the samples do too; what they show beyond it is decode
        worst[guidance] = max(
            apart(leaves.x.cpu(), expected), apart(env.decode(leaves), samples) / 10
        )
    figures = ", ".join(
        f"{value:.1e} at guidance {guidance:g}" for guidance, value in worst.items()
    )
    return max(worst.values()) <= TOLERANCE, f"relative difference {figures}"


CHECKS = (
    shapes,
    texts_alone,
    texts_count,
    finite,
    repeats,
    rows_alone,
    evaluation_mode,
    no_hidden_randomness,
    parity,
    *TRAINING,
)


def findings(config: Config) -> Iterator[Finding]:
    """What the kit says of the backbone that a configuration names, in float32."""
    family, where = registry.load("backbones", config.backbone.name), device(config)
    settings = config.backbone.model_copy(update={"dtype": "float32"}).settings(family.Settings)
    with TemporaryDirectory() as folder:
        for one in _tried(family, settings, folder):
            tried = subject(lambda one=one: family.load(one, where))  # type: ignore[misc]
            for finding in run(CHECKS, tried):
                yield replace(finding, name=f"{finding.name} {tuple(tried.x.shape[1:])}")


def _tried(
    family: type[Backbone], settings: PipelineSettings, folder: str
) -> list[PipelineSettings]:
    """The model itself, or a miniature that was saved to a folder, at two sizes."""
    if settings.model != "miniature":
        return [settings]
    if not issubclass(family, PipelineBackbone):
        raise InputError(
            f"--model: expected a folder or a hub id, as {family.__name__} says no architecture of its own"
        )
    architecture.build(family, "miniature", torch.device("cpu"), torch.float32).save_pretrained(
        folder
    )
    tried = []
    for height, width, frames in architecture.sizes(family):
        length = frames if family.modality == "videos" else None
        tried.append(replace(settings, model=folder, height=height, width=width, frames=length))
    return tried
