"""CLIP's two towers as rewards use them: embeddings of pictures and of texts, of length one."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def pictures(towers: Any, pixels: Tensor) -> Tensor:
    """Embeddings `[M, D]` of pixels `[M, 3, 224, 224]`."""
    found = towers.get_image_features(pixel_values=pixels)
    return _unit(getattr(found, "pooler_output", found))  # newer transformers wrap it


def texts(towers: Any, words: Any, prompts: Sequence[str]) -> Tensor:
    """Embeddings `[M, D]` of prompts; what is longer than the model reads is cut."""
    length = towers.config.text_config.max_position_embeddings
    given = words(
        list(prompts), padding="max_length", truncation=True, max_length=length, return_tensors="pt"
    )
    found = towers.get_text_features(input_ids=given.input_ids.to(towers.device))
    return _unit(getattr(found, "pooler_output", found))


def _unit(found: Tensor) -> Tensor:
    unit: Tensor = found.float() / torch.linalg.vector_norm(found.float(), dim=-1, keepdim=True)
    return unit
