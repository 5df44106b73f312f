"""CLIP's two towers as rewards use them: embeddings of images and of texts, of length one."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def alike(towers: Any, words: Any, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
    """Cosines `[M]` of the embeddings of images and of their prompts."""
    return (embedded(towers, pixels) * texts(towers, words, prompts)).sum(-1)


def embedded(towers: Any, pixels: Tensor) -> Tensor:
    """Embeddings `[M, D]` of pixels `[M, 3, 224, 224]`."""
    return _unit(towers.get_image_features(pixel_values=pixels).pooler_output)


def texts(towers: Any, words: Any, prompts: Sequence[str]) -> Tensor:
    """Embeddings `[M, D]` of prompts; what is longer than the model reads is cut."""
    length = towers.config.text_config.max_position_embeddings
    tokens = words(
        list(prompts), padding="max_length", truncation=True, max_length=length, return_tensors="pt"
    )
    return _unit(
        towers.get_text_features(input_ids=tokens.input_ids.to(towers.device)).pooler_output
    )


def _unit(embedding: Tensor) -> Tensor:
    whole = embedding.float()
    unit: Tensor = whole / torch.linalg.vector_norm(whole, dim=-1, keepdim=True)
    return unit
