"""The parts of the tiny Wan: genuine diffusers and transformers classes, small and untrained."""

from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanTransformer3DModel
from tiny_t5 import sizes
from transformers import T5TokenizerFast, UMT5Config, UMT5EncoderModel

CHANNELS = 4  # of the latents
TEXT, WIDTH = 48, 96  # width of the text encoder and of the denoiser
SHIFT = 3.0


def text_encoder(words: T5TokenizerFast) -> UMT5EncoderModel:
    """The UMT5 text encoder."""
    return UMT5EncoderModel(UMT5Config(**sizes(words, TEXT)))


def denoiser() -> WanTransformer3DModel:
    """The video transformer of Wan: five frames of 32x32 are 3 x 4 x 4 tokens."""
    return WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=WIDTH // 32,
        attention_head_dim=32,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        text_dim=TEXT,
        freq_dim=64,
        ffn_dim=256,
        num_layers=4,
        rope_max_seq_len=32,
    )


def autoencoder() -> AutoencoderKLWan:
    """A causal video autoencoder of half as many frames, four times smaller, built as the one
    of Wan 2.2."""
    return AutoencoderKLWan(
        base_dim=24,
        z_dim=CHANNELS,
        dim_mult=[1, 1],
        num_res_blocks=1,
        temperal_downsample=[True],
        latents_mean=[0.0] * CHANNELS,
        latents_std=[1.0] * CHANNELS,
        is_residual=True,
        in_channels=12,  # 2 x 2 pixels each
        out_channels=12,
        patch_size=2,
        scale_factor_temporal=2,
        scale_factor_spatial=4,
    )


def scheduler() -> UniPCMultistepScheduler:
    """The scheduler that Wan ships with."""
    return UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=SHIFT
    )
