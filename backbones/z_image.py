"""Z-Image (rectified flow, one stream of picture and text): the base model, and Turbo, which needs no guidance."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from treerl.backbone.contract import Condition
from treerl.backbone.pipeline import Pipelined
from treerl.engine.schedule import Flow

LENGTH = 512  # tokens of text, as the pipeline's own call has it


class ZImage(Pipelined):
    """A `ZImagePipeline`; its own `guidance_scale` is the guidance here less one, so that there, too, none is 0."""

    name = "z-image"
    title = "Z-Image"
    pipeline_class = "ZImagePipeline"

    @property
    def default_size(self) -> tuple[int, int, int]:
        return 1024, 1024, 1

    @property
    def grid(self) -> tuple[int, int]:
        return 2 * self.pipeline.vae_scale_factor, 1

    @property
    def shape(self) -> tuple[int, ...]:
        rows, columns = (
            side // self.pipeline.vae_scale_factor for side in (self.height, self.width)
        )
        return self.pipeline.transformer.config.in_channels, rows, columns

    def texts(self, prompts: list[str]) -> Mapping[str, Tensor]:
        length = self.settings.max_sequence_length or LENGTH
        rows, _ = self.pipeline.encode_prompt(
            list(prompts),  # which it overwrites
            device=self.device,
            do_classifier_free_guidance=False,
            max_sequence_length=length,
        )
        return {
            "text": torch.stack([pad(row, (0, 0, 0, length - len(row))) for row in rows]),
            "length": torch.tensor([len(row) for row in rows], device=self.device),
        }

    def schedule(self, steps: int) -> Flow:
        patches = self.shape[1] * self.shape[2] // 4
        even = np.linspace(1.0, 1 / steps, steps)
        return self.flow(self.walked(steps, sigmas=even, mu=self.shift(patches)))

    def network(self, x: Tensor, time: Tensor, condition: Condition, guidance: float) -> Tensor:
        # it takes each text without its padding, for where a picture stands depends on the length of its text
        lengths = condition["length"].tolist()
        texts = [row[:length] for row, length in zip(condition["text"], lengths, strict=True)]
        pictures = list(x.unsqueeze(2).unbind())
        # it is told how much of the sample there is, and points from the noise to it
        rows: list[Tensor] = self.pipeline.transformer(
            pictures, (1000 - time) / 1000, texts, return_dict=False
        )[0]
        return -torch.stack(rows).squeeze(2)

    def decoded(self, x: Tensor) -> Tensor:
        vae = self.pipeline.vae
        pictures: Tensor = vae.decode(
            x / vae.config.scaling_factor + vae.config.shift_factor, return_dict=False
        )[0]
        return pictures

    def arguments(
        self, prompts: Sequence[str], latents: Tensor, steps: int, guidance: float
    ) -> dict[str, Any]:
        given = super().arguments(prompts, latents, steps, guidance)
        return given | {"guidance_scale": max(guidance - 1, 0.0)}
