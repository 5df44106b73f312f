"""ImageReward (arXiv 2304.05977): a BLIP tuned on people's rankings of images for a prompt."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import (
    BertTokenizer,
    BlipTextConfig,
    BlipTextModel,
    BlipVisionConfig,
    BlipVisionModel,
)

from treerl.errors import InputError

from ._learned import Learned  # noqa: TID251
from .aesthetic import Rater, width_of  # noqa: TID251

REPOSITORY = "THUDM/ImageReward"
FILE = "ImageReward.pt"
WORDS = "google-bert/bert-base-uncased"
MEAN = 0.16717  # of its training scores
STD = 1.03334
LENGTH = 35  # tokens of a prompt
_VISION = {
    "cls_token": "embeddings.class_embedding",
    "pos_embed": "embeddings.position_embedding",
    "patch_embed.proj": "embeddings.patch_embedding",
    "norm": "post_layernorm",
}
_LAYER = {
    "norm1": "layer_norm1",
    "norm2": "layer_norm2",
    "attn.qkv": "self_attn.qkv",
    "attn.proj": "self_attn.projection",
}
_BLOCK = re.compile(r"blocks\.(\d+)\.(.+)\.(weight|bias)$")


@dataclass
class ImageReward(Learned):
    """About -2 to 2, standardised over its training scores."""

    title: ClassVar[str] = "imagereward"
    tokenizer: str | None = None  # a folder or a hub id of BERT's; null is the published one

    def read(self) -> None:
        parts = separated(self.weights(REPOSITORY, FILE))
        if not all(parts.values()):
            expected = "expected blip.visual_encoder, blip.text_encoder and mlp"
            raise InputError(f"reward {self.title}: its weights are of another model: {expected}")
        vision = parts["vision"]
        text = parts["text"]
        mlp = parts["mlp"]
        self.vision: Any = self.placed(self.filled(lambda: BlipVisionModel(seeing(vision)), vision))
        reader = self.filled(lambda: BlipTextModel(reading(text), add_pooling_layer=False), text)
        self.text: Any = self.placed(reader)
        self.rater: Any = self.placed(self.filled(lambda: Rater(width_of(mlp)), mlp))
        self.words: Any = self.pretrained(BertTokenizer, self.tokenizer or WORDS, "tokenizer")

    def rate(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        tokens = self.words(
            list(prompts),
            padding="max_length",
            truncation=True,
            max_length=LENGTH,
            return_tensors="pt",
        ).to(self.where)
        seen = self.vision(pixel_values=images).last_hidden_state
        read = self.text(
            input_ids=tokens.input_ids,
            attention_mask=tokens.attention_mask,
            encoder_hidden_states=seen,
            encoder_attention_mask=torch.ones(seen.shape[:2], dtype=torch.long, device=self.where),
            is_decoder=False,
        ).last_hidden_state
        rated: Tensor = self.rater.layers(read[:, 0]).squeeze(-1)
        return (rated.float() - MEAN) / STD


def separated(state: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """The tensors of the published file under transformers' names, by part."""
    parts: dict[str, dict[str, Tensor]] = {"vision": {}, "text": {}, "mlp": {}}
    for name, tensor in state.items():
        if name.startswith("blip.visual_encoder."):
            parts["vision"][seen_as(name.removeprefix("blip.visual_encoder."))] = tensor
        elif name.startswith("blip.text_encoder.") and not name.endswith("position_ids"):
            parts["text"][name.removeprefix("blip.text_encoder.")] = tensor
        elif name.startswith("mlp."):
            parts["mlp"][name.removeprefix("mlp.")] = tensor
    return parts


def seen_as(name: str) -> str:
    """The name of a tensor of timm's vision transformer in `BlipVisionModel`."""
    if block := _BLOCK.match(name):
        return f"encoder.layers.{block[1]}.{_LAYER.get(block[2], block[2])}.{block[3]}"
    whole, _, kind = name.rpartition(".")
    return _VISION[name] if name in _VISION else f"{_VISION.get(whole, whole)}.{kind}"


def seeing(state: dict[str, Tensor]) -> BlipVisionConfig:
    """The vision transformer that these tensors are of; its heads are 64 wide."""
    patch = state["embeddings.patch_embedding.weight"]
    cells = state["embeddings.position_embedding"].shape[1] - 1
    return BlipVisionConfig(
        hidden_size=len(patch),
        intermediate_size=len(state["encoder.layers.0.mlp.fc1.weight"]),
        num_hidden_layers=layers(state, "encoder.layers."),
        num_attention_heads=max(1, len(patch) // 64),
        patch_size=patch.shape[-1],
        image_size=patch.shape[-1] * round(cells**0.5),
        layer_norm_eps=1e-6,
    )


def reading(state: dict[str, Tensor]) -> BlipTextConfig:
    """The text transformer that these tensors are of; its heads are 64 wide."""
    words = state["embeddings.word_embeddings.weight"]
    return BlipTextConfig(
        vocab_size=len(words),
        hidden_size=words.shape[1],
        encoder_hidden_size=state["encoder.layer.0.crossattention.self.key.weight"].shape[1],
        intermediate_size=len(state["encoder.layer.0.intermediate.dense.weight"]),
        num_hidden_layers=layers(state, "encoder.layer."),
        num_attention_heads=max(1, words.shape[1] // 64),
        max_position_embeddings=len(state["embeddings.position_embeddings.weight"]),
        layer_norm_eps=1e-12,
    )


def layers(state: dict[str, Tensor], prefix: str) -> int:
    """How many layers these tensors are of; counted, as a number in a name may be any."""
    return len({name.split(".")[2] for name in state if name.startswith(prefix)})
