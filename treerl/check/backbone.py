"""Whether a backbone does what its contract says."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import cycle, islice
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from treerl import registry
from treerl.backbone import random_weights
from treerl.backbone.contract import Backbone, Condition
from treerl.backbone.lora import Trainable
from treerl.backbone.pipeline import PipelineBackbone
from treerl.check.finding import Finding, check, run
from treerl.check.inputs import INPUTS
from treerl.check.own_call import OWN_CALL
from treerl.check.subject import ROWS, STEPS, TASKS, TOLERANCE, Subject, apart
from treerl.check.training import TRAINING
from treerl.config.schema import Config
from treerl.engine.schedule import Schedule
from treerl.run.assemble import device_of
from treerl.run.quiet import quiet
from treerl.run.tasks import read_tasks

Result = tuple[bool, str]


@check("see load, default_size, size_multiple and configure_scheduler", vital=True)
def loads(subject: Subject) -> Result:
    """The model loads, and its latent has a shape."""
    shape = subject.backbone.shape
    return len(shape) > 0 and min(shape) > 0, f"{subject.backbone.title}, latents {tuple(shape)}"


@check(
    "see encode, cond, uncond and encode_prompts; tasks of its own are --set data.train=FILE",
    vital=True,
)
def encodes(subject: Subject) -> Result:
    """The tasks become tensors with a finite row for each."""
    shapes = {}
    good = True
    for name, tensor in subject.condition.tensors.items():
        shapes[name] = tuple(tensor.shape)
        good &= len(tensor) == ROWS and bool(torch.isfinite(tensor).all())
    return good, ", ".join(f"{name} {shape}" for name, shape in shapes.items()) or "nothing"


@check("return one of treerl.engine.schedule, of as many steps as were wanted", vital=True)
def schedules(subject: Subject) -> Result:
    """The schedule has the wanted number of steps, with a time for each."""
    schedule: object = subject.schedule
    if not isinstance(schedule, Schedule):
        return False, f"a {type(schedule).__name__}"
    good = len(schedule.time) == STEPS == len(schedule.noise) - 1
    return good, f"{type(schedule).__name__} of {len(schedule.time)} steps for {STEPS}"


@check("see predict and network", vital=True)
def predicts(subject: Subject) -> Result:
    """A prediction has the shape of the latents, in float32."""
    with torch.no_grad():
        predicted = subject.predict()
    good = predicted.shape == subject.x.shape and predicted.dtype == torch.float32
    return good, f"{tuple(predicted.shape)} {predicted.dtype} of latents {tuple(subject.x.shape)}"


@check("see decode and vae_decode, and how shape follows from height, width and frames", vital=True)
def samples(subject: Subject) -> Result:
    """Samples are float32 in [0, 1], of the height, width and frames that were wanted."""
    with torch.no_grad():
        images = subject.backbone.decode(subject.x, subject.condition)
    shape = tuple(images.shape)
    expected = _expected_shape(subject.backbone, shape)
    inside = bool(((images >= 0) & (images <= 1)).all())
    text = f"{shape} {images.dtype}, expected {expected}"
    if not inside:
        text = f"{text}, from {float(images.min()):.3g} to {float(images.max()):.3g}"
    return shape == expected and inside and images.dtype == torch.float32, text


@check("see schedule (the time argument and its unit) and predict", vital=True)
def finite(subject: Subject) -> Result:
    """The prediction is finite at every step of the schedule."""
    bad = []
    with torch.no_grad():
        for step in range(STEPS):
            if not bool(torch.isfinite(subject.predict(step=step)).all()):
                bad.append(step)
    return not bad, f"not finite at steps {bad}" if bad else f"finite at all {STEPS} steps"


@check("pad texts to one length whatever the prompts, and mask the padding")
def texts_alone(subject: Subject) -> Result:
    """A task is encoded the same alone as among others."""
    alone = Condition.cat([subject.backbone.encode([task]) for task in subject.tasks])
    gaps = {}
    for name, tensor in subject.condition.tensors.items():
        if alone[name].shape != tensor.shape:
            return False, f"another shape alone: {name} {tuple(alone[name].shape)}"
        gaps[name] = apart(alone[name].float(), tensor.float())
    worst = max(gaps.values(), default=0.0)
    return worst <= TOLERANCE, f"relative difference {worst:.1e}"


@check("something keeps a state between calls, or draws random numbers")
def repeats(subject: Subject) -> Result:
    """The same rows twice give the same bits, and under inference mode too."""
    with torch.no_grad():
        first = subject.predict()
        again = subject.predict()
    with torch.inference_mode():
        third = subject.predict()
    same = torch.equal(first, again) and torch.equal(first, third)
    return same, f"difference {max(apart(first, again), apart(first, third)):.1e}"


@check("something is computed over the batch: see predict, and how time is passed")
def rows_alone(subject: Subject) -> Result:
    """A row does not depend on the others of its batch, nor on their steps."""
    gaps = [_gap_alone(subject, guidance) for guidance in (1.0, subject.guidance)]
    text = f"relative difference {max(gaps):.1e} of 5 rows, at mixed steps, and the same one by one"
    return max(gaps) <= TOLERANCE, text


def _gap_alone(subject: Subject, guidance: float) -> float:
    index = torch.tensor([0, 1, 2, 1, 0], device=subject.x.device)
    time = subject.schedule.time[[0, 1, 2, 3, 1]].to(subject.x.device)

    def predict(rows: Tensor) -> Tensor:
        tasks = index[rows]
        condition = subject.condition.take(tasks)
        return subject.backbone.predict(subject.x[tasks], time[rows], condition, guidance)

    every = torch.arange(len(index), device=index.device)
    with torch.no_grad():
        together = predict(every)
        singly = torch.cat([predict(row) for row in torch.split(every, 1)])
    return apart(together, singly)


@check("a dropout or a batch norm is left in the denoiser: set its probability to 0 in the config")
def evaluation_mode(subject: Subject) -> Result:
    """Training mode changes nothing: no dropout, no batch statistics."""
    modules = subject.backbone.denoisers.values()
    with torch.no_grad():
        before = subject.predict()
        for module in modules:
            module.train()
        after = subject.predict()
        for module in modules:
            module.eval()
    return torch.equal(before, after), f"difference {apart(before, after):.1e}"


@check("draw nothing: noise is an argument of initial(), and an autoencoder's mean is its sample")
def no_hidden_randomness(subject: Subject) -> Result:
    """Encoding, predicting and decoding draw nothing from torch's global generator."""
    before = torch.random.get_rng_state()
    first = torch.tensor([0], device=subject.x.device)
    with torch.no_grad():
        subject.backbone.encode(subject.tasks[:1])
        subject.predict()
        subject.backbone.decode(subject.x[:1], subject.condition.take(first))
    same = torch.equal(before, torch.random.get_rng_state())
    return same, "generator untouched" if same else "the global generator was used"


CHECKS = (
    loads,
    encodes,
    schedules,
    predicts,
    samples,
    finite,
    texts_alone,
    repeats,
    rows_alone,
    evaluation_mode,
    no_hidden_randomness,
    *INPUTS,
    *OWN_CALL,
    *TRAINING,
)


def findings(config: Config) -> Iterator[Finding]:
    """What the kit says of the backbone that a configuration names, in float32."""
    quiet()
    family: type[Backbone] = registry.load("backbones", config.backbone.name)
    device = device_of(config)
    tasks = TASKS
    if config.data.train is not None:
        train, _ = read_tasks(config)
        tasks = tuple(islice(cycle(train), ROWS))
    trainable = Trainable(
        config.train.trainable, 2, 2, gradient_checkpointing=config.train.gradient_checkpointing
    )
    with TemporaryDirectory() as folder:
        for size, settings in _variants(family, config.backbone.build(), folder):
            make = partial(family.load, settings, device)
            for finding in run(CHECKS, Subject(make, tasks, trainable, config.env.name)):
                yield replace(finding, name=finding.name + size)


def _expected_shape(backbone: Backbone, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of the samples; sides that the backbone does not tell are those of `shape`."""
    videos = backbone.modality == "videos"
    if isinstance(backbone, PipelineBackbone):
        frames = (backbone.frames,) if videos else ()
        return ROWS, *frames, 3, backbone.height, backbone.width
    if len(shape) != (5 if videos else 4):
        return (ROWS, 0, 3, 0, 0) if videos else (ROWS, 3, 0, 0)
    return ROWS, *shape[1:-3], 3, *shape[-2:]


def _variants(family: type[Backbone], settings: Any, folder: str) -> list[tuple[str, Any]]:
    """The settings to try: of the model itself, or of a saved miniature at its sizes."""
    if not issubclass(family, PipelineBackbone):
        return [("", settings)]
    settings = replace(settings, dtype="float32")
    if settings.model != "miniature":
        return [("", settings)]
    pipeline = random_weights.build(family, "miniature", torch.device("cpu"), torch.float32)
    pipeline.save_pretrained(folder)
    variants = []
    for height, width, frames in random_weights.sizes(family):
        length = frames if family.modality == "videos" else None
        size = f" {height}x{width}" if length is None else f" {height}x{width}x{length}"
        sized = replace(settings, model=folder, height=height, width=width, frames=length)
        variants.append((size, sized))
    return variants
