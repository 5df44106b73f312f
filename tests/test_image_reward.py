"""ImageReward gives the published implementation's score, from a file of the published layout."""

from pathlib import Path

import torch
from test_learned_rewards import PROMPTS, close, images_of, pil, reward
from torch import Tensor
from transformers import (
    BertTokenizer,
    BlipTextConfig,
    BlipTextModel,
    BlipVisionConfig,
    BlipVisionModel,
    CLIPImageProcessorPil,
)

from treerl.engine.task import Samples


def blip(folder: Path) -> tuple[BlipVisionModel, BlipTextModel, dict[str, Tensor], BertTokenizer]:
    """A random BLIP, its tensors as ImageReward's file names them, and a tokenizer."""
    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *sorted({word for one in PROMPTS for word in one.split()}),
        ",",
    ]
    (folder / "vocab.txt").write_text("\n".join(words))
    reader = BertTokenizer(str(folder / "vocab.txt"))
    reader.save_pretrained(folder)
    (folder / "config.json").write_text("{}")
    torch.manual_seed(0)
    seeing = BlipVisionConfig(
        hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=1,
        image_size=224, patch_size=32,
        layer_norm_eps=1e-6, initializer_range=0.2,
    )  # fmt: skip
    reading = BlipTextConfig(
        vocab_size=len(words) + 2, hidden_size=64, encoder_hidden_size=64, intermediate_size=96,
        num_hidden_layers=2, num_attention_heads=1, max_position_embeddings=64,
        layer_norm_eps=1e-12, initializer_range=0.2,
    )  # fmt: skip
    vision, text = (
        BlipVisionModel(seeing).eval(),
        BlipTextModel(reading, add_pooling_layer=False).eval(),
    )
    back = {
        "embeddings.class_embedding": "cls_token",
        "embeddings.position_embedding": "pos_embed",
        "embeddings.patch_embedding": "patch_embed.proj",
        "post_layernorm": "norm",
        "encoder.layers": "blocks",
        "layer_norm": "norm",
        "self_attn.projection": "attn.proj",
        "self_attn": "attn",
    }
    state = {}
    for name, tensor in vision.state_dict().items():
        for ours, theirs in back.items():
            name = name.replace(ours, theirs)
        state[f"blip.visual_encoder.{name}"] = tensor
    state |= {f"blip.text_encoder.{name}": tensor for name, tensor in text.state_dict().items()}
    state["blip.text_encoder.embeddings.position_ids"] = torch.arange(64)[None]
    return vision, text, state, reader


def test_image_reward_is_the_published_one(tmp_path: Path) -> None:
    vision, text, state, words = blip(tmp_path)
    sizes = [64, 1024, 128, 64, 16, 1]
    places = ["layers.0", "layers.2", "layers.4", "layers.6", "layers.7"]
    for place, a, b in zip(places, sizes, sizes[1:], strict=False):
        state |= {
            f"mlp.{place}.weight": torch.randn(b, a) / a**0.5,
            f"mlp.{place}.bias": torch.randn(b),
        }
    torch.save(state, tmp_path / "ImageReward.pt")
    assert (
        "blip.visual_encoder.blocks.1.attn.qkv.weight" in state
        and "blip.visual_encoder.norm.bias" in state
    )
    pixels = CLIPImageProcessorPil()(images=pil(images_of()), return_tensors="pt").pixel_values
    given = words(
        PROMPTS, padding="max_length", truncation=True, max_length=35, return_tensors="pt"
    )
    with torch.no_grad():
        seen = vision(pixel_values=pixels).last_hidden_state
        ones = torch.ones(seen.shape[:2], dtype=torch.long)
        found = text(
            input_ids=given.input_ids,
            attention_mask=given.attention_mask,
            encoder_hidden_states=seen,
            encoder_attention_mask=ones,
            is_decoder=False,
        ).last_hidden_state[:, 0]
        for place in places:
            found = found @ state[f"mlp.{place}.weight"].T + state[f"mlp.{place}.bias"]
    expected = (found[:, 0] - 0.16717) / 1.03334
    close(
        reward("imagereward", model=str(tmp_path), tokenizer=str(tmp_path))(
            Samples.of(images_of(), PROMPTS)
        ),
        expected,
    )
