"""The memory of a run at any number of rows, from its configuration: counted on fakes."""

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from math import lcm, prod
from typing import cast

import torch
from torch import Tensor, nn

from treerl import registry
from treerl.backbone import lora
from treerl.backbone.blocks import blocks
from treerl.backbone.fake import Fakes
from treerl.backbone.live_bytes import LiveBytes
from treerl.backbone.parts import PipelineParts
from treerl.backbone.quantized import saved_bytes, whole_bytes
from treerl.backbone.unloaded import META, unloaded, weight_bytes
from treerl.config.algorithm import algorithm_of
from treerl.config.schema import Config
from treerl.engine.weight_sets import copies
from treerl.run.needs import env_of, trainable_of
from treerl.run.peak import Held, Line, Peak
from treerl.run.plan import Plan, plan_of
from treerl.run.rehearsal import Rehearsal
from treerl.run.tasks import read_tasks

BY_ROWS = ("window", "tails", "decode", "update")
_FEW = 2  # rows: what a row costs follows from two counts, and one alone is spared some copies
_MORE = 4


@dataclass(frozen=True)
class Forecast:
    """What a configuration's run keeps, and what each phase needs beside it."""

    config: Config
    held: Held
    fakes: Fakes
    rehearsal: Rehearsal  # on them
    counts: dict[tuple[str, int], int] = field(default_factory=dict)  # bytes by phase and rows

    @classmethod
    def of(cls, config: Config) -> "Forecast | None":
        """That of a configuration; None where the model is known by loading it alone."""
        family = registry.load("backbones", config.backbone.name)
        if not issubclass(family, PipelineParts):
            return None
        backbone = unloaded(family, config.backbone.build())
        plan = plan_of(config, algorithm_of(config))
        fakes = Fakes()
        rehearsal, encode = _rehearsal(config, plan, backbone, fakes)
        held = _held(config, plan, backbone, rehearsal)
        return cls(config, held, fakes, rehearsal, {("encode", 0): encode})

    @property
    def backbone(self) -> PipelineParts:
        """On fakes."""
        backbone = self.rehearsal.backbone
        assert isinstance(backbone, PipelineParts)
        return backbone

    def changed(self, config: Config, anew: Collection[str]) -> "Forecast":
        """The same under other settings, by which the phases `anew` need another amount."""
        other = Forecast.of(config)
        assert other is not None
        kept = {key: size for key, size in self.counts.items() if key[0] not in anew}
        return replace(other, counts=other.counts | kept)

    def at(self, rows: int, processes: int = 1) -> Peak:
        """Counted with so many rows in a forward, on processes that share the denoiser."""
        return self._peak({phase: self._count(phase, rows) for phase in BY_ROWS}, processes)

    def along(self, rows: int) -> Peak:
        """The same from two counts, which is quick for any number of rows."""
        return self._peak({phase: self._line(phase).at(rows) for phase in BY_ROWS})

    def smaller(self) -> tuple[int, int, int] | None:
        """Half the height, width and (of a video) length; None where that is too small."""
        backbone = self.backbone
        pixels, span = backbone.size_multiple
        multiple = lcm(pixels, 8)  # which settings ask for
        height = backbone.height // 2 // multiple * multiple
        width = backbone.width // 2 // multiple * multiple
        frames = (backbone.frames - 1) // 2 // span * span + 1
        return (height, width, frames) if min(height, width) > 0 else None

    def _peak(self, moving: dict[str, int], processes: int = 1) -> Peak:
        offload = self.config.backbone.build().offload_text_encoders
        encode = {"encode": self.counts["encode", 0]}
        return self.held.peak(encode | moving, offload, processes)

    def _line(self, phase: str) -> Line:
        few = (_FEW, self._count(phase, _FEW))
        return Line.through(few, (_MORE, self._count(phase, _MORE)))

    def _count(self, phase: str, rows: int) -> int:
        if (phase, rows) not in self.counts:
            work = getattr(self.rehearsal, phase)(rows)
            with LiveBytes(self.fakes.like) as live:
                work()
            self.counts[phase, rows] = live.peak
        return self.counts[phase, rows]


def _rehearsal(
    config: Config, plan: Plan, backbone: PipelineParts, fakes: Fakes
) -> tuple[Rehearsal, int]:
    """The phases on fakes of a model on the meta device, and the bytes that encoding needs."""
    with META:
        parameters = lora.attach(backbone, trainable_of(config), None, config.seed)
    fakes.fill(backbone)
    learning = [cast(nn.Parameter, fakes.of(parameter)) for parameter in parameters]
    latent_dtype: torch.dtype = getattr(torch, config.env.latent_dtype)

    def latents(count: int) -> Tensor:
        return fakes.empty(count, *backbone.shape, dtype=latent_dtype)

    task = read_tasks(config)[0][0]
    with LiveBytes(fakes.like) as live:
        env = env_of(config, backbone, plan).with_tasks([task])
    with LiveBytes(fakes.like):
        condition = backbone.encode([task])
    rehearsal = Rehearsal(
        backbone=backbone,
        env=env,
        condition=condition,
        algorithm=plan.algorithm,
        spec=max(plan.support, key=lambda spec: max(spec.children)),
        parameters=learning,
        others=copies(learning),
        latents=latents,
    )
    return rehearsal, live.peak


def _held(config: Config, plan: Plan, backbone: PipelineParts, rehearsal: Rehearsal) -> Held:
    trained = sum(map(_bytes, rehearsal.parameters))
    sizes = {name: weight_bytes(part) for name, part in backbone.modules.items()}
    denoiser = sum(sizes.pop(name) for name in backbone.denoisers)
    how = config.backbone.build().quantize
    whole = 0
    if how is not None:
        frozen = list(backbone.denoisers.values())
        denoiser -= saved_bytes(frozen, how)
        whole = whole_bytes(frozen, how)
    encoders = sum(sizes.pop(name) for name in backbone.text_encoders)
    vae = sizes.pop("vae", 0)
    latent = prod(backbone.shape) * rehearsal.env.latent_dtype.itemsize
    trees = plan.algorithm.trees_per_prompt
    prompts = plan.prompts_per_iteration
    stored = prompts * plan.algorithm.trees.stored(plan.steps, trees) * latent
    widest = prompts * trees * max(max(spec.widths) for spec in plan.support) * latent
    here = config.env.latent_device == "device"
    parts = [part for module in backbone.denoisers.values() for part in blocks(module)]
    return Held(
        denoiser=denoiser - trained,
        trained=trained,
        gradients=trained,
        optimizer=2 * trained,
        others=_sets(config, plan) * trained,
        vae=vae,
        text_encoders=encoders,
        networks=sum(sizes.values()),
        conditions=prompts * sum(map(_bytes, rehearsal.condition.tensors.values())),
        latents=stored if here else 0,
        growing=2 * widest if here else 0,
        block=max(map(weight_bytes, parts), default=0),
        whole=whole,
    )


def _sets(config: Config, plan: Plan) -> int:
    """How many values a weight that trains has beside its own."""
    algorithm = plan.algorithm
    wanted = algorithm.objective.weight_set
    average = algorithm.ema > 0
    fresh = config.train.trainable == "lora" and not config.backbone.params.get("adapter")
    start = wanted == "start" and not fresh
    old = wanted == "old" and not (average and algorithm.rollout == "ema")
    return average + start + old + (wanted == "teacher")


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
