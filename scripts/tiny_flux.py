"""The parts of the tiny FLUX: genuine diffusers and transformers classes, small and untrained."""

from diffusers import FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel
from tiny_sd3 import TEXT, WIDTH, text_settings
from tiny_t5 import sizes
from transformers import CLIPTextModel, CLIPTokenizer, T5Config, T5EncoderModel, T5TokenizerFast


def pooled_encoder(words: CLIPTokenizer) -> CLIPTextModel:
    """The CLIP text encoder, of which FLUX reads the pooled output."""
    return CLIPTextModel(text_settings(words))


def text_encoder(words: T5TokenizerFast) -> T5EncoderModel:
    """The T5 text encoder, of which FLUX reads every token."""
    return T5EncoderModel(T5Config(**sizes(words, TEXT)))


def denoiser() -> FluxTransformer2DModel:
    """The double-stream and single-stream blocks of FLUX; without embedded guidance, as in
    FLUX.1-schnell."""
    return FluxTransformer2DModel(
        in_channels=16,  # 2 x 2 latents of 4 channels
        num_layers=2,
        num_single_layers=3,
        attention_head_dim=32,
        num_attention_heads=WIDTH // 32,
        joint_attention_dim=TEXT,
        pooled_projection_dim=TEXT,
        guidance_embeds=False,
        axes_dims_rope=(8, 12, 12),
    )


def scheduler() -> FlowMatchEulerDiscreteScheduler:
    """The scheduler of FLUX.1-dev, whose shift grows with the number of tokens."""
    return FlowMatchEulerDiscreteScheduler(
        shift=3.0,
        use_dynamic_shifting=True,
        base_shift=0.5,
        max_shift=1.15,
        base_image_seq_len=256,
        max_image_seq_len=4096,
    )
