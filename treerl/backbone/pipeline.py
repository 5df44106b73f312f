"""What families of diffusers pipelines share: devices, text encoders, guidance, decoding."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import torch
from torch import Tensor

from treerl.backbone import exporting, loading, sizes, unloaded, weights
from treerl.backbone.attention import choose_attention
from treerl.backbone.contract import Condition, Footprint, require_text
from treerl.backbone.files import boundary
from treerl.backbone.parts import PipelineParts
from treerl.backbone.quantized import bitsandbytes, quantize
from treerl.backbone.settings import PipelineSettings
from treerl.backbone.vocabulary import refuse_misfits
from treerl.engine.task import Task

_REMEMBERED = 64  # unconditional halves kept; most runs have one


class PipelineBackbone(PipelineParts):
    """A diffusers pipeline behind the backbone contract.

    A family subclasses it, or a shipped family that it resembles. `name` is its name on the command
    line, and architectures/NAME.yaml beside the family's file describes its random models.
    """

    def __init__(self, pipeline: Any, settings: PipelineSettings, device: torch.device) -> None:
        super().__init__(pipeline, settings, device)
        refuse_misfits(pipeline.components, loading.cannot(type(self), settings))
        self._uncond: dict[Task, Mapping[str, Tensor]] = {}  # by what it depends on
        self.configure_scheduler()
        self.height, self.width, self.frames = sizes.chosen(self)
        self.sample_bytes = 4 * 3 * self.frames * self.height * self.width
        if settings.quantize is not None:
            quantize(self.denoisers.values(), settings.quantize, self._dtype, device)
        self._place()
        loading.arrange_vae(self)
        choose_attention(self)

    @classmethod
    def check_class(cls) -> None:
        super().check_class()
        require_text(cls, "name")
        require_text(cls, "pipeline_class")
        loading.check_class(cls)

    @classmethod
    def check_available(cls, settings: PipelineSettings) -> None:
        loading.check_available(cls, settings)
        if settings.quantize == "nf4":
            bitsandbytes()

    @classmethod
    def footprint(cls, settings: PipelineSettings) -> Footprint:
        return unloaded.footprint(cls, settings)

    @classmethod
    def load(cls, settings: PipelineSettings, device: torch.device) -> Self:
        # what is to be quantized need not fit whole on the device
        place = device if settings.quantize is None else torch.device("cpu")
        pipeline = loading.load(cls, settings, place)
        with boundary(loading.cannot(cls, settings)):
            return cls(pipeline, settings, device)

    def configure_scheduler(self) -> None:
        """Replace the pipeline's scheduler where a step of it depends on those before.

        It is asked first, and may refuse the model; `shipped_scheduler` stays what came with it.
        """

    def latent_grid(self, unit: int, span: int = 1) -> tuple[int, int, int]:
        """Frames, rows and columns of a latent that has a cell for `unit` pixels a side.

        One cell holds `span` frames, but for the first frame, which has one of its own.
        """
        return (self.frames - 1) // span + 1, self.height // unit, self.width // unit

    @abstractmethod
    def encode_prompts(self, prompts: list[str]) -> Mapping[str, Tensor]:
        """Texts through the text encoders, each `[P, ...]`, of one shape whatever the text."""

    def cond(self, tasks: Sequence[Task]) -> Mapping[str, Tensor]:
        """What a task asks for, each `[P, ...]`; a family that reads media adds them here."""
        return self.encode_prompts([task.prompt for task in tasks])

    def uncond(self, tasks: Sequence[Task]) -> Mapping[str, Tensor]:
        """What guidance leads away from, `[P, ...]`, under those names of `cond` that differ.

        It may depend on a task's negative prompt and media alone.
        """
        return self.encode_prompts([self.negative_prompt(task) for task in tasks])

    @abstractmethod
    def network(self, x: Tensor, time: Tensor, condition: Condition, guidance: float) -> Tensor:
        """One forward of the denoiser on rows as they are: the prediction, in the model's dtype."""

    def vae_decode(self, x: Tensor) -> Tensor:
        """The autoencoder's `[M, 3, H, W]` or `[M, 3, F, H, W]` in [-1, 1]; `x` is in its dtype."""
        vae = self.pipeline.vae
        latents = x / vae.config.scaling_factor
        shift = vae.config.get("shift_factor")
        if shift is not None:
            latents = latents + shift
        samples: Tensor = vae.decode(latents, return_dict=False)[0]
        return samples

    def combine(self, uncond: Tensor, cond: Tensor, guidance: float) -> Tensor:
        """Classifier-free guidance (arXiv 2207.12598) of two predictions in float32."""
        return uncond + guidance * (cond - uncond)

    def arguments(
        self, tasks: Sequence[Task], latents: Tensor, steps: int, guidance: float
    ) -> dict[str, Any]:
        """The arguments with which the pipeline's own call takes the path of treerl's ODE.

        `check` compares the two, and `export` hands them to a process of diffusers alone: values
        are numbers, texts, lists and images.
        """
        arguments = {
            "prompt": [task.prompt for task in tasks],
            "height": self.height,
            "width": self.width,
            "num_inference_steps": steps,
            "guidance_scale": guidance,
            "latents": latents,
        }
        if not self.guidance_embedded and guidance > 1:
            arguments["negative_prompt"] = [self.negative_prompt(task) for task in tasks]
        if self.modality == "videos":
            arguments["num_frames"] = self.frames
        return arguments | self.length_argument

    def call(
        self,
        tasks: Sequence[Task],
        latents: Tensor,
        steps: int,
        guidance: float,
        output: Literal["latent", "pt"],
    ) -> Tensor:
        """What the pipeline's own call draws with those arguments, in float32 on the CPU."""
        arguments = self.arguments(tasks, latents, steps, guidance)
        with torch.no_grad(), self.encoding():
            drawn: Tensor = self._pipeline(**arguments, output_type=output, return_dict=False)[0]
        return drawn.float().cpu()

    @property
    def source(self) -> str:
        """The folder or the hub id that the pipeline was loaded from."""
        source = loading.source_of(type(self), self.settings)
        return str(Path(source).resolve()) if Path(source).is_dir() else source

    def negative_prompt(self, task: Task) -> str:
        """The negative prompt of a task: its own, the run's, or the family's."""
        if task.negative is not None:
            return task.negative
        if self.settings.negative_prompt is not None:
            return self.settings.negative_prompt
        return self.default_negative_prompt

    def validate_tasks(self, tasks: Sequence[Task]) -> None:
        sizes.validate_tasks(self, tasks)

    def encode(self, tasks: Sequence[Task]) -> Condition:
        self.validate_tasks(tasks)
        with torch.no_grad(), self.encoding():
            if self.guidance_embedded:
                return Condition.of(self.cond(tasks), {})
            rows = [self._unconditional(task) for task in tasks]
            uncond = {name: torch.cat([row[name] for row in rows]) for name in rows[0]}
            return Condition.of(self.cond(tasks), uncond)

    def predict(self, x: Tensor, time: Tensor, condition: Condition, guidance: float) -> Tensor:
        x = x.to(self._dtype)
        with self._autocast():
            if self.guidance_embedded or guidance <= 1:  # the pipelines, too, guide only above 1
                return self.network(x, time, condition, guidance).float()
            both = self.network(
                torch.cat([x, x]), torch.cat([time, time]), condition.for_cfg(), guidance
            ).float()
        uncond, cond = both.chunk(2)
        if not self.settings.cfg_grad:  # a constant of the update, as in Flow-GRPO
            uncond = uncond.detach()
        return self.combine(uncond, cond, guidance)

    def decode(self, x: Tensor, condition: Condition) -> Tensor:
        samples = self.vae_decode(x.to(self._pipeline.vae.dtype)).float() / 2 + 0.5
        if self.modality == "videos":
            samples = samples.transpose(1, 2)
        return samples.clamp(0, 1)

    def save(self, folder: Path) -> None:
        weights.save(self.denoisers, folder, loading.save_pretrained)

    def check_exportable(self) -> None:
        exporting.check(self)

    def export(self, folder: Path) -> None:
        exporting.write(self, folder)

    def describe(self) -> dict[str, Any]:
        size = {"height": self.height, "width": self.width, "frames": self.frames}
        return super().describe() | size | {"pipeline": self.pipeline_class}

    def _unconditional(self, task: Task) -> Mapping[str, Tensor]:
        """The unconditional half `[1, ...]` of a task, encoded once for all that share it."""
        shared = Task("", negative=task.negative, media=task.media)
        if shared not in self._uncond:
            if len(self._uncond) >= _REMEMBERED:
                del self._uncond[next(iter(self._uncond))]
            self._uncond[shared] = self.uncond([shared])
        return self._uncond[shared]
