"""What families of diffusers pipelines share: loading, devices, text encoders, guidance, decoding."""

import copy
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from treerl.backbone import loading as pretrained, random_weights as architecture
from treerl.backbone.contract import Backbone, Condition
from treerl.config.schema import Backbone as Settings
from treerl.engine.schedule import Flow
from treerl.errors import InputError


class Pipelined(Backbone):
    """A diffusers pipeline behind the backbone contract."""

    name: ClassVar[
        str
    ]  # on the command line; architectures/NAME.yaml beside the family's file describes it
    title: ClassVar[str]  # for people
    pipeline_class: ClassVar[str]  # of diffusers
    denoiser_names: ClassVar[tuple[str, ...]] = ("transformer",)
    embedded: ClassVar[bool] = (
        False  # the network takes the guidance as an input, so that nothing is doubled
    )
    precise_vae: ClassVar[bool] = (
        False  # its autoencoder must run in float32, whatever the denoiser's dtype
    )
    blank: ClassVar[str] = ""  # the negative prompt that its pipeline is used with

    def __init__(self, pipeline: Any, settings: Settings, device: torch.device) -> None:
        self._pipeline, self.settings, self._device = pipeline, settings, device
        self._negative: dict[str, Tensor] | None = None  # the negative prompt, encoded once
        self._encoding = 0  # how many want the text encoders on the device
        pipeline.set_progress_bar_config(disable=True)
        for component in self.modules.values():
            component.requires_grad_(False).eval()
        self._dtype: torch.dtype = getattr(torch, settings.dtype)
        self.shipped_scheduler = pipeline.scheduler
        self.prepare()
        self.height, self.width, self.frames = self._size()
        for name, component in self.modules.items():
            component.to("cpu" if name in self.encoders and settings.offload else device)
        if self.precise_vae:
            pipeline.vae.float()
        pretrained.arrange_vae(pipeline, self.makes, settings, device)

    @classmethod
    def find(cls, settings: Settings) -> None:
        pretrained.find(cls, settings)

    @classmethod
    def load(cls, settings: Settings, device: torch.device) -> Self:
        return cls(pretrained.load(cls, settings, device), settings, device)

    def prepare(self) -> None:
        """What a family changes on its pipeline first, such as the scheduler that treerl walks."""

    @property
    @abstractmethod
    def default_size(self) -> tuple[int, int, int]:
        """Height and width in pixels, and frames (1 for pictures), of the pipeline itself."""

    @property
    @abstractmethod
    def grid(self) -> tuple[int, int]:
        """The multiple that height and width are of, and the one that frames - 1 is of."""

    @abstractmethod
    def texts(self, prompts: list[str]) -> Mapping[str, Tensor]:
        """The prompts through the text encoders, each `[P, ...]`, of the same shape whatever the prompt."""

    def free(self) -> Mapping[str, Tensor]:
        """What guidance leads away from, `[1, ...]` under the names of `texts`."""
        return self.texts([self.negative])

    @abstractmethod
    def network(self, x: Tensor, time: Tensor, condition: Condition, guidance: float) -> Tensor:
        """One forward of the denoiser on rows that are already guided or not: the prediction, in the model's dtype."""

    @abstractmethod
    def decoded(self, x: Tensor) -> Tensor:
        """The autoencoder's output `[M, 3, H, W]` or `[M, 3, F, H, W]` in [-1, 1]; `x` is in its dtype."""

    def arguments(
        self, prompts: Sequence[str], latents: Tensor, steps: int, guidance: float
    ) -> dict[str, Any]:
        """The arguments that make the pipeline's own call walk the same path as treerl's ODE from `latents`."""
        given = {
            "prompt": list(prompts),
            "height": self.height,
            "width": self.width,
            "num_inference_steps": steps,
            "guidance_scale": guidance,
            "latents": latents,
        }
        if not self.embedded and guidance > 1:
            given["negative_prompt"] = [self.negative] * len(prompts)
        if self.makes == "videos":
            given["num_frames"] = self.frames
        return given | self.tokens

    def call(
        self,
        prompts: Sequence[str],
        latents: Tensor,
        steps: int,
        guidance: float,
        output: Literal["latent", "pt"],
    ) -> Tensor:
        """What the pipeline's own call draws with those arguments, in float32 on the CPU."""
        given = self.arguments(prompts, latents, steps, guidance)
        with torch.no_grad(), self.encoding():
            drawn: Tensor = self._pipeline(**given, output_type=output, return_dict=False)[0]
        return drawn.float().cpu()

    def combine(self, free: Tensor, guided: Tensor, guidance: float) -> Tensor:
        """Classifier-free guidance (arXiv 2207.12598) of two predictions in float32."""
        return free + guidance * (guided - free)

    @property
    def device(self) -> torch.device:
        return self._device

    @property
    def pipeline(self) -> Any:
        return self._pipeline

    @property
    def source(self) -> str:
        """The folder or the hub id that the pipeline was loaded from."""
        source = pretrained.source_of(type(self), self.settings)
        return str(Path(source).resolve()) if Path(source).is_dir() else source

    @property
    def modules(self) -> dict[str, nn.Module]:
        """Every network of the pipeline by component name."""
        parts = self._pipeline.components.items()
        return {name: component for name, component in parts if isinstance(component, nn.Module)}

    @property
    def denoisers(self) -> Mapping[str, nn.Module]:
        parts = self.modules
        return {name: parts[name] for name in self.denoiser_names if name in parts}

    @property
    def encoders(self) -> dict[str, nn.Module]:
        """The text encoders by component name."""
        return {name: one for name, one in self.modules.items() if name.startswith("text_encoder")}

    @property
    def negative(self) -> str:
        """The negative prompt of guidance."""
        return self.blank if self.settings.negative is None else self.settings.negative

    def encode(self, prompts: Sequence[str]) -> Condition:
        with torch.no_grad(), self.encoding():
            if self._negative is None:
                self._negative = {} if self.embedded else dict(self.free())
            positive = dict(self.texts(list(prompts)))
        count = len(prompts)
        spread = {
            f"negative_{name}": row.expand(count, *row.shape[1:])
            for name, row in self._negative.items()
        }
        return Condition(positive | spread)

    @contextmanager
    def encoding(self) -> Iterator[None]:
        """The text encoders are on the device; they are a third of a model, and wanted once for each prompt."""
        self._encoding += 1
        try:
            for encoder in self.encoders.values():
                encoder.to(self._device)
            yield
        finally:
            self._encoding -= 1
            if self.settings.offload and self._encoding == 0:
                for encoder in self.encoders.values():
                    encoder.to("cpu")

    def predict(self, x: Tensor, time: Tensor, condition: Condition, guidance: float) -> Tensor:
        x = x.to(self._dtype)
        with self._casting():
            if self.embedded or guidance <= 1:  # the pipelines, too, guide only above 1
                return self.network(x, time, condition, guidance).float()
            both = self.network(
                torch.cat([x, x]), torch.cat([time, time]), condition.guided(), guidance
            ).float()
        free, guided = both.chunk(2)
        if not self.settings.train_unconditional:  # a constant of the update, as in Flow-GRPO
            free = free.detach()
        return self.combine(free, guided, guidance)

    def decode(self, x: Tensor) -> Tensor:
        samples = self.decoded(x.to(self._pipeline.vae.dtype)).float() / 2 + 0.5
        if self.makes == "videos":
            samples = samples.transpose(1, 2)
        return samples.clamp(0, 1)

    @property
    def tokens(self) -> dict[str, int]:
        """`max_sequence_length` as the keyword that it is in the pipelines; empty is the pipeline's own."""
        wanted = self.settings.max_sequence_length
        return {} if wanted is None else {"max_sequence_length": wanted}

    def walked(self, steps: int, sigmas: Any = None, mu: float | None = None) -> Any:
        """A copy of the pipeline's scheduler, set to so many steps with what the pipeline passes to it."""
        scheduler = copy.deepcopy(self._pipeline.scheduler)
        given = {"sigmas": sigmas, "mu": mu}  # only some schedulers know these
        scheduler.set_timesteps(
            steps, **{name: value for name, value in given.items() if value is not None}
        )
        return scheduler

    def flow(self, scheduler: Any, unit: float = 1.0) -> Flow:
        """A flow schedule of a diffusers scheduler; `unit` is what its timesteps are multiplied by for the network."""
        return Flow(time=scheduler.timesteps.float() * unit, sigma=scheduler.sigmas.double())

    def shift(self, tokens: int) -> float:
        """mu of dynamic shifting for so many tokens of a latent: linear between the two that the scheduler names."""
        config = self._pipeline.scheduler.config
        low, high = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
        bottom, top = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
        return float(bottom + (top - bottom) * (tokens - low) / (high - low))

    def denormalised(self, x: Tensor) -> Tensor:
        """Latents `[M, C, ...]` in the autoencoder's own units, channel by channel: x · std / scaling + mean."""
        config, wide = self._pipeline.vae.config, (1, -1, *(1,) * (x.dim() - 2))
        mean, std = (
            torch.tensor(one, dtype=x.dtype, device=x.device).view(wide)
            for one in (config.latents_mean, config.latents_std)
        )
        found: Tensor = x * std / config.get("scaling_factor", 1.0) + mean
        return found

    def _casting(self) -> AbstractContextManager[Any]:
        # full weights are trained in float32 under autocast, so that an update is not lost in rounding
        if next(iter(self.denoisers.values())).dtype == self._dtype:
            return nullcontext()
        return torch.autocast(self._device.type, self._dtype)

    def _size(self) -> tuple[int, int, int]:
        given, (unit, span) = self.settings, self.grid
        # a miniature keeps what fixes the published size, at which it is no miniature
        small = (
            architecture.sizes(type(self))[0] if given.model == "miniature" else self.default_size
        )
        height, width, frames = (*small, 1)[:3]
        height, width = given.height or height, given.width or width
        if height % unit or width % unit:
            raise InputError(
                f"backbone.height, backbone.width: expected multiples of {unit}, got {height}x{width}"
            )
        if self.makes == "pictures" and given.frames is not None:
            raise InputError(
                f"backbone.frames: expected null, as {self.title} makes pictures, got {given.frames}"
            )
        frames = given.frames or frames
        if (frames - 1) % span:
            raise InputError(
                f"backbone.frames: expected a multiple of {span} and one more, got {frames}"
            )
        return height, width, frames
