"""The parts of the tiny Stable Diffusion 3: genuine diffusers and transformers classes, small
and untrained."""

import json
from collections.abc import Sequence

from diffusers import AutoencoderKL, SD3Transformer2DModel
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

TOKENS = 10  # of a caption, with its two marks; "a red circle in the centre" has eight
TEXT, WIDTH = 48, 96  # width of each text encoder and of the denoiser


def tokenizer(captions: Sequence[str]) -> CLIPTokenizer:
    """A CLIP tokenizer whose merges make one token of each word of the captions."""
    trained = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    trained.normalizer = normalizers.Lowercase()
    trained.pre_tokenizer = pre_tokenizers.Whitespace()
    trained.train_from_iterator(
        captions, trainers.BpeTrainer(vocab_size=400, end_of_word_suffix="</w>")
    )
    learnt = json.loads(trained.to_str())["model"]
    vocabulary = {word: number for number, word in enumerate(learnt["vocab"])}
    for byte in sorted(pre_tokenizers.ByteLevel.alphabet()):
        for symbol in (byte, byte + "</w>"):
            vocabulary.setdefault(symbol, len(vocabulary))
    for mark in ("<|startoftext|>", "<|endoftext|>"):
        vocabulary[mark] = len(vocabulary)
    merges = [
        tuple(pair.split(" ")) if isinstance(pair, str) else tuple(pair)
        for pair in learnt["merges"]
    ]
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=TOKENS)


def text_encoder(words: CLIPTokenizer) -> CLIPTextModelWithProjection:
    """A small CLIP text encoder over that vocabulary."""
    return CLIPTextModelWithProjection(text_settings(words))


def text_settings(words: CLIPTokenizer) -> CLIPTextConfig:
    """The sizes of a small CLIP text encoder over that vocabulary."""
    return CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=TEXT,
        intermediate_size=2 * TEXT,
        num_hidden_layers=2,
        num_attention_heads=3,
        max_position_embeddings=TOKENS,
        projection_dim=TEXT,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
    )


def denoiser() -> SD3Transformer2DModel:
    """The MMDiT of Stable Diffusion 3, four blocks wide enough for shapes."""
    return SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=4,
        attention_head_dim=32,
        num_attention_heads=WIDTH // 32,
        joint_attention_dim=2 * TEXT,
        caption_projection_dim=WIDTH,
        pooled_projection_dim=2 * TEXT,
        pos_embed_max_size=8,
    )


def autoencoder() -> AutoencoderKL:
    """An autoencoder of 32x32 pictures to 4x8x8 latents."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 32, 48),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=32,
        mid_block_add_attention=False,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )
