"""Stable Diffusion XL (variance-preserving diffusion, U-Net): two CLIP encoders, and a U-Net that is told sizes."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from treerl.backbone.contract import Condition

from .sd15 import SD15  # noqa: TID251


class SDXL(SD15):
    """A `StableDiffusionXLPipeline`, walked by DDIM on the betas that the checkpoint ships."""

    name = "sdxl"
    title = "Stable Diffusion XL"
    pipeline_class = "StableDiffusionXLPipeline"
    precise_vae = True  # its activations overflow float16

    def texts(self, prompts: list[str]) -> Mapping[str, Tensor]:
        text, _, pooled, _ = self.pipeline.encode_prompt(
            prompts, device=self.device, do_classifier_free_guidance=False
        )
        return {"text": text, "pooled": pooled}

    def free(self) -> Mapping[str, Tensor]:
        texts = self.texts([self.negative])
        return (
            {name: torch.zeros_like(one) for name, one in texts.items()} if self._zeros else texts
        )

    def arguments(
        self, prompts: Sequence[str], latents: Tensor, steps: int, guidance: float
    ) -> dict[str, Any]:
        given = super().arguments(prompts, latents, steps, guidance)
        return {
            name: value
            for name, value in given.items()
            if name != "negative_prompt" or not self._zeros
        }

    def added(self, x: Tensor, condition: Condition) -> dict[str, Any]:
        # as large as it is asked for and not cropped, which is what the pipeline says unless it is told otherwise
        sizes = torch.tensor(
            [self.height, self.width, 0, 0, self.height, self.width], dtype=x.dtype, device=x.device
        )
        return {"text_embeds": condition["pooled"], "time_ids": sizes.expand(len(x), -1)}

    def decoded(self, x: Tensor) -> Tensor:
        vae = self.pipeline.vae
        if vae.config.get("latents_mean") is None:
            return super().decoded(x)
        pictures: Tensor = vae.decode(self.denormalised(x), return_dict=False)[0]
        return pictures

    @property
    def _zeros(self) -> bool:
        """Whether guidance starts from zeros, as the model was trained, and not from an encoded negative prompt."""
        return self.settings.negative is None and bool(
            self.pipeline.config.force_zeros_for_empty_prompt
        )
