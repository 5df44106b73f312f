"""The parts of a diffusers pipeline: networks and where they are, scheduler, latents."""

import copy
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from treerl.backbone import comfyui
from treerl.backbone.contract import Backbone
from treerl.backbone.settings import BackboneSettings, PipelineSettings
from treerl.engine.schedule import Flow


class PipelineParts(Backbone):
    """What every family finds on itself; `PipelineBackbone` makes a backbone of it."""

    Settings: ClassVar[type[BackboneSettings]] = PipelineSettings
    name: ClassVar[str]
    pipeline_class: ClassVar[str]  # of diffusers
    guidance_embedded: ClassVar[bool] = False  # an input of the network, so nothing is doubled
    default_negative_prompt: ClassVar[str] = ""  # what its pipeline is used with
    media: ClassVar[tuple[str, ...]] = ()  # the slots that every task of it must fill
    own_levels: ClassVar[bool] = False  # its noise levels are not those of the shipped scheduler
    denoiser_names: ClassVar[tuple[str, ...]] = ("transformer",)
    float32_vae: ClassVar[bool] = False  # its autoencoder needs it, whatever the denoiser's dtype

    height: int  # pixels
    width: int
    frames: int  # 1 for images

    def __init__(self, pipeline: Any, settings: PipelineSettings, device: torch.device) -> None:
        self._pipeline = pipeline
        self.settings = settings
        self._device = device
        self._dtype: torch.dtype = getattr(torch, settings.dtype)
        self._encoding = 0  # how many want the text encoders on the device
        self.shipped_scheduler = pipeline.scheduler  # before `configure_scheduler`
        pipeline.set_progress_bar_config(disable=True)
        for component in self.modules.values():
            component.requires_grad_(False).eval()

    @property
    @abstractmethod
    def default_size(self) -> tuple[int, int, int]:
        """Height and width in pixels, and frames (1 for images), of the pipeline itself."""

    @property
    @abstractmethod
    def size_multiple(self) -> tuple[int, int]:
        """The multiple that height and width are of, and the one that frames - 1 is of."""

    @property
    def longest_side(self) -> int | None:
        """Pixels a side that the model has positions for; None where it takes any size."""
        return None

    def comfyui_layers(self, layers: comfyui.Layers) -> comfyui.Layers | None:
        """The layers of a LoRA, by name in the denoiser, under ComfyUI's names; None: unknown."""
        return None

    @property
    def pipeline(self) -> Any:
        """The diffusers pipeline that it stands on."""
        return self._pipeline

    @property
    def device(self) -> torch.device:
        return self._device

    @property
    def random_weights(self) -> bool:
        return self.settings.model == "random"

    @property
    def modules(self) -> dict[str, nn.Module]:
        """Every network of the pipeline by component name."""
        parts = self._pipeline.components.items()
        return {name: part for name, part in parts if isinstance(part, nn.Module)}

    @property
    def denoisers(self) -> Mapping[str, nn.Module]:
        parts = self.modules
        return {name: parts[name] for name in self.denoiser_names if name in parts}

    @property
    def text_encoders(self) -> dict[str, nn.Module]:
        """The text encoders by component name."""
        parts = self.modules.items()
        return {name: part for name, part in parts if name.startswith("text_encoder")}

    @property
    def length_argument(self) -> dict[str, int]:
        """`max_sequence_length` as the keyword that pipelines know; empty is the pipeline's own."""
        length = self.settings.max_sequence_length
        return {} if length is None else {"max_sequence_length": length}

    def move(self, device: torch.device) -> None:
        self._device = device
        self._place()

    @contextmanager
    def encoding(self) -> Iterator[None]:
        """The text encoders are on the device; they are a third of a model, and seldom wanted."""
        self._encoding += 1
        try:
            for encoder in self.text_encoders.values():
                encoder.to(self._device)
            yield
        finally:
            self._encoding -= 1
            if self.settings.offload_text_encoders and self._encoding == 0:
                for encoder in self.text_encoders.values():
                    encoder.to("cpu")

    def scheduler_with_timesteps(
        self, steps: int, sigmas: Any = None, mu: float | None = None
    ) -> Any:
        """A copy of the pipeline's scheduler, set to so many steps as the pipeline's call does."""
        scheduler = copy.deepcopy(self._pipeline.scheduler)
        arguments: dict[str, Any] = {}  # only some schedulers know these
        if sigmas is not None:
            arguments["sigmas"] = sigmas
        if mu is not None:
            arguments["mu"] = mu
        scheduler.set_timesteps(steps, **arguments)
        return scheduler

    def flow(self, scheduler: Any, time_scale: float = 1.0) -> Flow:
        """A flow schedule of a diffusers scheduler; the network is told timestep · `time_scale`."""
        return Flow(time=scheduler.timesteps.float() * time_scale, sigma=scheduler.sigmas.double())

    def mu(self, tokens: int) -> float:
        """The shift of dynamic shifting for a latent of so many tokens.

        It is linear between the two lengths that the scheduler names.
        """
        config = self._pipeline.scheduler.config
        short = config.get("base_image_seq_len", 256)
        long = config.get("max_image_seq_len", 4096)
        low = config.get("base_shift", 0.5)
        high = config.get("max_shift", 1.15)
        return float(low + (high - low) * (tokens - short) / (long - short))

    def denormalised(self, x: Tensor) -> Tensor:
        """Latents `[M, C, ...]` in the VAE's units, by channel: x · std / scaling + mean."""
        config = self._pipeline.vae.config
        by_channel = (1, -1, *(1,) * (x.dim() - 2))
        mean = torch.tensor(config.latents_mean, dtype=x.dtype, device=x.device).view(by_channel)
        std = torch.tensor(config.latents_std, dtype=x.dtype, device=x.device).view(by_channel)
        latents: Tensor = x * std / config.get("scaling_factor", 1.0) + mean
        return latents

    def _place(self) -> None:
        """Every network where it runs, or waits."""
        for name, component in self.modules.items():
            waits = name in self.text_encoders and self.settings.offload_text_encoders
            component.to("cpu" if waits else self._device)
        if self.float32_vae:
            self._pipeline.vae.float()

    def _autocast(self) -> AbstractContextManager[Any]:
        # full weights are trained in float32 under autocast, so that no update is lost in rounding
        if next(iter(self.denoisers.values())).dtype == self._dtype:
            return nullcontext()
        return torch.autocast(self._device.type, self._dtype)
