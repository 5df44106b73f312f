"""Z-Image (rectified flow, one stream of image and text): base, and Turbo without guidance."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from treerl.backbone import comfyui
from treerl.backbone.contract import Condition
from treerl.backbone.pipeline import PipelineBackbone
from treerl.engine.schedule import Flow
from treerl.engine.task import Task

LENGTH = 512  # tokens of text, as the pipeline's own call has it


class ZImage(PipelineBackbone):
    """A `ZImagePipeline`; its own `guidance_scale` is the guidance here less one."""

    name = "z-image"
    title = "Z-Image"
    pipeline_class = "ZImagePipeline"

    @property
    def default_size(self) -> tuple[int, int, int]:
        return 1024, 1024, 1

    @property
    def size_multiple(self) -> tuple[int, int]:
        return 2 * self.pipeline.vae_scale_factor, 1

    @property
    def shape(self) -> tuple[int, ...]:
        _, rows, columns = self.latent_grid(self.pipeline.vae_scale_factor)
        return self.pipeline.transformer.config.in_channels, rows, columns

    def encode_prompts(self, prompts: list[str]) -> Mapping[str, Tensor]:
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
        return self.flow(self.scheduler_with_timesteps(steps, sigmas=even, mu=self.mu(patches)))

    def network(self, x: Tensor, time: Tensor, condition: Condition, guidance: float) -> Tensor:
        # each text without its padding, for the image stands where its text ends
        lengths = condition["length"].tolist()
        texts = [row[:length] for row, length in zip(condition["text"], lengths, strict=True)]
        images = list(x.unsqueeze(2).unbind())
        # it is told how much of the sample there is, and points from the noise to it
        rows: list[Tensor] = self.pipeline.transformer(
            images, (1000 - time) / 1000, texts, return_dict=False
        )[0]
        return -torch.stack(rows).squeeze(2)

    def arguments(
        self, tasks: Sequence[Task], latents: Tensor, steps: int, guidance: float
    ) -> dict[str, Any]:
        arguments = super().arguments(tasks, latents, steps, guidance)
        return arguments | {"guidance_scale": max(guidance - 1, 0.0)}

    def comfyui_layers(self, layers: comfyui.Layers) -> comfyui.Layers | None:
        return comfyui.prefixed(layers, "transformer.")
