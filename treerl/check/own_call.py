"""Whether a backbone draws what its pipeline's own call draws, and if not, which part differs."""

import copy
import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from treerl.backbone.pipeline import PipelineBackbone
from treerl.check.finding import Skip, check
from treerl.check.subject import ROWS, STEPS, TOLERANCE, Subject, apart, environment
from treerl.engine import noise
from treerl.engine.branching import ode
from treerl.engine.grow import grow
from treerl.engine.roots import make_roots
from treerl.engine.schedule import Diffusion

Result = tuple[bool, str]


class _Seen(Exception):
    """Ends a pipeline's call when what was wanted of it has been seen."""


@check("see default_size; it is what the pipeline's own call takes without height and width")
def default_size(subject: Subject) -> Result:
    """The default size is that of the pipeline's own call."""
    backbone = subject.pipeline
    if backbone.media:
        raise Skip("its pipeline may take the size of the files")
    pixels = _default_pixels(subject, backbone)
    height, width, frames = backbone.default_size
    expected = (pixels["height"], pixels["width"])
    good = (height, width) == expected
    text = f"{height}x{width}, the pipeline's is {expected[0]}x{expected[1]}"
    if backbone.modality == "videos":
        drawn = pixels.get("num_frames", pixels.get("frames", frames))
        # some pipelines draw a few more, and drop them
        good &= 0 <= drawn - frames < backbone.size_multiple[1]
        text = f"{text}; {frames} frames, the pipeline's are {drawn}"
    return good, text


@check("see schedule, scheduler_with_timesteps (sigmas, mu) and configure_scheduler")
def levels(subject: Subject) -> Result:
    """The noise levels are those of the scheduler that the model ships, as its own call sets it."""
    backbone = subject.pipeline
    if backbone.own_levels:
        raise Skip(f"{type(backbone).__name__}.own_levels says that it means others")
    scheduler = _set_by_call(subject, backbone)
    times = scheduler.timesteps.double().cpu()
    if isinstance(subject.schedule, Diffusion):
        # a multistep scheduler lists a time twice where it starts
        times = torch.unique(times).flip(0)
        levels = scheduler.alphas_cumprod[times.long()].double()
        ours = subject.schedule.alpha_bar[:-1]
    else:
        levels = scheduler.sigmas.double().cpu()
        if scheduler.config.get("invert_sigmas"):
            levels = 1 - levels
        ours = subject.schedule.noise
    own_times = subject.schedule.time.double()
    own_times = own_times * (times.max() / own_times.max())  # in the scheduler's unit
    level_gap = apart(ours, levels)
    time_gap = apart(own_times, times)
    text = f"relative difference of levels {level_gap:.1e}, of times {time_gap:.1e}"
    good = max(level_gap, time_gap) <= TOLERANCE
    if not good:
        text = f"{text}; {_listed(ours)} where the shipped scheduler has {_listed(levels)}"
    return good, text


@check("see the part that is named: its own call and the rollout differ there, or in arguments()")
def parity(subject: Subject) -> Result:
    """The deterministic rollout is the pipeline's own call on the same latents and tasks."""
    backbone = subject.pipeline
    gaps = {}
    for guidance in (1.0, subject.guidance):
        gaps[guidance] = _compared(subject, backbone, guidance)
    worst = {guidance: gap.worst for guidance, gap in gaps.items()}
    figures = [f"{value:.1e} at guidance {guidance:g}" for guidance, value in worst.items()]
    text = f"relative difference {', '.join(figures)}"
    good = max(worst.values()) <= TOLERANCE
    return good, text if good else f"{text}: {_cause(*gaps.values())}"


OWN_CALL = (default_size, levels, parity)


@dataclass(frozen=True)
class _Gaps:
    """How far the rollout is from the pipeline's own call."""

    first: float  # of the first prediction; infinite where they do not compare
    reversed: float  # of the first prediction, were its sign the other
    latents: float
    images: float

    @property
    def worst(self) -> float:
        # where the path differs the samples do too; what they show beyond it is decode
        return max(self.latents, self.images / 10)


def _compared(subject: Subject, backbone: PipelineBackbone, guidance: float) -> _Gaps:
    env = environment(subject, guidance)
    roots = make_roots([noise.key(0, row) for row in range(ROWS)], 1)
    draws = noise.normal(roots.start, env.shape, torch.float32, backbone.device)
    start = backbone.initial(draws, subject.condition)
    tree = grow(env, roots, ode(STEPS), rows=ROWS)
    leaves = tree.at(tree.leaves)
    time = subject.schedule.time[[0] * ROWS].to(backbone.device)
    with torch.no_grad():
        ours = backbone.predict(start, time, subject.condition, guidance).cpu()
    steps: list[Tensor] = []
    with _spied(backbone, "step", lambda scheduler, bound: steps.append(bound["model_output"])):
        latents = backbone.call(subject.tasks, start, STEPS, guidance, "latent")
    images = backbone.call(subject.tasks, start, STEPS, guidance, "pt")
    theirs = steps[0].float().cpu()
    return _Gaps(
        first=apart(ours, theirs),
        reversed=apart(-ours, theirs),
        latents=apart(leaves.x.cpu(), latents),
        images=apart(env.samples(leaves).images, images),
    )


def _cause(plain: _Gaps, guided: _Gaps) -> str:
    """Which part is to blame."""
    loose = 10 * TOLERANCE
    if plain.worst <= TOLERANCE:
        return "guidance (combine, uncond, the negative prompt, or how the network is told it)"
    if plain.latents <= TOLERANCE:
        return "decode (the latents are right: scaling, shift, unpacking, range)"
    if plain.first <= loose:
        return "schedule (the first prediction is right: levels, the last step, initial)"
    if plain.reversed <= loose:
        return "the sign of what predict returns, or the direction of schedule"
    if plain.first == float("inf"):
        return "predict, encode or schedule (the first predictions have different shapes)"
    return "text, time or network (the first prediction is wrong)"


def _default_pixels(subject: Subject, backbone: PipelineBackbone) -> dict[str, Any]:
    """The arguments with which the own call makes latents when it is not told a size."""
    arguments = backbone.arguments(subject.tasks, subject.x, STEPS, 1.0)
    for name in ("height", "width", "num_frames", "latents"):
        arguments.pop(name, None)
    pipeline = backbone.pipeline
    signature = inspect.signature(pipeline.prepare_latents)
    seen: dict[str, Any] = {}

    def spy(*args: Any, **kwargs: Any) -> None:
        seen.update(signature.bind(*args, **kwargs).arguments)
        raise _Seen

    pipeline.prepare_latents = spy
    try:
        with torch.no_grad(), backbone.encoding():
            pipeline(**arguments, output_type="latent", return_dict=False)
    except _Seen:
        pass
    finally:
        del pipeline.prepare_latents
    if "height" not in seen or "width" not in seen:
        raise Skip("its pipeline does not say which size it makes latents of")
    return seen


def _set_by_call(subject: Subject, backbone: PipelineBackbone) -> Any:
    """The shipped scheduler after the pipeline's own call has set its steps."""
    seen = []

    def after(scheduler: Any, bound: dict[str, Any]) -> None:
        seen.append(scheduler)
        raise _Seen

    with _spied(backbone, "set_timesteps", after, backbone.shipped_scheduler):
        try:
            backbone.call(subject.tasks, subject.x, STEPS, 1.0, "latent")
        except _Seen:
            pass
    return seen[0]


@contextmanager
def _spied(
    backbone: PipelineBackbone,
    method: str,
    after: Callable[[Any, dict[str, Any]], None],
    scheduler: Any = None,
) -> Iterator[None]:
    """The pipeline has a copy of a scheduler, its own at first, that tells of a method's calls."""
    kept = backbone.pipeline.scheduler
    copied = copy.deepcopy(kept if scheduler is None else scheduler)
    original = getattr(copied, method)
    signature = inspect.signature(original)

    @functools.wraps(original)  # pipelines read its signature
    def spy(*args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        after(copied, signature.bind(*args, **kwargs).arguments)
        return result

    setattr(copied, method, spy)
    backbone.pipeline.scheduler = copied
    try:
        yield
    finally:
        backbone.pipeline.scheduler = kept


def _listed(levels: Tensor) -> str:
    return "[" + ", ".join(f"{level:.3f}" for level in levels.tolist()) + "]"
