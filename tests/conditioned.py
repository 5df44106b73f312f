# mypy: disable-error-code="no-any-return,misc"
"""Families that read a picture: FLUX Kontext edits one, LTX goes on from one."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from treerl.backbones.flux import Flux  # type: ignore[import-not-found]
from treerl.backbones.ltx import LTX  # type: ignore[import-not-found]

from treerl.backbone import media
from treerl.backbone.contract import Condition
from treerl.engine.task import Task


class Kontext(Flux):
    """A `FluxKontextPipeline`: the picture's tokens stand behind the latent's."""

    name = "flux-kontext"
    title = "FLUX.1 Kontext"
    pipeline_class = "FluxKontextPipeline"
    media = ("image",)

    def cond(self, tasks: Sequence[Task]) -> Mapping[str, Tensor]:
        return {**super().cond(tasks), "image": torch.cat([self._image(task) for task in tasks])}

    def tokens(self, x: Tensor, condition: Condition) -> tuple[Tensor, Tensor]:
        tokens, places = super().tokens(x, condition)
        others = places.clone()
        others[:, 0] = 1
        return torch.cat([tokens, condition["image"].to(x)], 1), torch.cat([places, others])

    def arguments(
        self, tasks: Sequence[Task], latents: Tensor, steps: int, guidance: float
    ) -> dict[str, Any]:
        images = [media.image(task).resize((self.width, self.height)) for task in tasks]
        own = {"image": images, "max_area": self.height * self.width, "_auto_resize": False}
        return super().arguments(tasks, latents, steps, guidance) | own

    def _image(self, task: Task) -> Tensor:
        """The picture as tokens `[1, L, 64]`."""
        picture = media.image(task).resize((self.width, self.height))
        pixels = self.pipeline.image_processor.preprocess(picture, self.height, self.width)
        latents = self.pipeline._encode_vae_image(
            pixels.to(self.device, self.pipeline.vae.dtype), generator=None
        )
        tokens: Tensor = self.pipeline._pack_latents(latents, *latents.shape)
        return tokens


class Moving(LTX):
    """An `LTXImageToVideoPipeline`: the first latent frame is the picture, and is no action."""

    name = "ltx-image"
    title = "LTX-Video from an image"
    pipeline_class = "LTXImageToVideoPipeline"
    media = ("image",)

    @property
    def shape(self) -> tuple[int, ...]:
        tokens, channels = super().shape
        return tokens - self._first, channels

    def cond(self, tasks: Sequence[Task]) -> Mapping[str, Tensor]:
        return {**super().cond(tasks), "image": torch.cat([self._image(task) for task in tasks])}

    def network(self, x: Tensor, time: Tensor, condition: Condition, guidance: float) -> Tensor:
        times = time[:, None].repeat(1, self._first + x.shape[1])
        times[:, : self._first] = 0  # the picture is clean
        video = self._video(x, condition)
        return super().network(video, times, condition, guidance)[:, self._first :]

    def decode(self, x: Tensor, condition: Condition) -> Tensor:
        return super().decode(self._video(x, condition), condition)

    def arguments(
        self, tasks: Sequence[Task], latents: Tensor, steps: int, guidance: float
    ) -> dict[str, Any]:
        arguments = super().arguments(tasks, latents, steps, guidance)
        return arguments | {"latents": self._video(latents, self.encode(tasks))}

    @property
    def _first(self) -> int:
        """Tokens of a latent frame."""
        _, rows, columns = self._latent
        return rows * columns

    def _video(self, x: Tensor, condition: Condition) -> Tensor:
        return torch.cat([condition["image"].to(x), x], dim=1)

    def _image(self, task: Task) -> Tensor:
        """The picture as the first frame's tokens `[1, L, C]`."""
        pipeline = self.pipeline
        vae = pipeline.vae
        pixels = pipeline.video_processor.preprocess(media.image(task), self.height, self.width)
        pixels = pixels.to(self.device, vae.dtype).unsqueeze(2)
        latents = pipeline._normalize_latents(
            vae.encode(pixels).latent_dist.mode(), vae.latents_mean, vae.latents_std
        )
        tokens: Tensor = pipeline._pack_latents(latents)
        return tokens
