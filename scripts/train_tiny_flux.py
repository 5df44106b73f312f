"""Trains the built-in tiny FLUX on rendered, captioned shapes, with the autoencoder of the tiny
Stable Diffusion 3.

    # about 20 minutes of one CPU core; writes treerl/tiny/flux
    python scripts/train_tiny_flux.py

Deterministic: the same machine, thread count and versions give the same weights. A share of the
captions it learns from
is wrong on purpose (`--wrong`), so that it draws clean pictures of often the wrong thing: what
reinforcement learning
is to mend.
"""

import math
import time

import torch
from diffusers import AutoencoderKL, FluxPipeline
from diffusers.pipelines.flux.pipeline_flux import calculate_shift
from pretraining import (
    PACKAGE,
    Data,
    arguments,
    encoded,
    flow_error,
    judged,
    publish,
    train_denoiser,
)
from tiny_flux import denoiser, pooled_encoder, scheduler, text_encoder
from tiny_sd3 import TOKENS as CLIP_TOKENS, tokenizer
from tiny_t5 import TOKENS, tokenizer as t5_tokenizer
from torch import Tensor
from train_tiny_sd3 import DRAW, WORLD

from treerl.toy.drawing import PIXELS


def pack(vae: AutoencoderKL, data: Data) -> Data:
    """The data in units of the latents' deviation, two by two in a row of 16 tokens, as FLUX
    takes them."""
    latents = (data.latents - vae.config.shift_factor) * vae.config.scaling_factor
    return Data(FluxPipeline._pack_latents(latents, *latents.shape), data.caption)


def train(pipe: FluxPipeline, data: Data, wrong: float, iterations: int) -> None:
    """Flow matching, text encoders included, on captions of which each attribute is wrong with
    chance `wrong`."""
    generator = torch.Generator().manual_seed(2)
    texts = [*WORLD.texts, ""]
    ids = pipe.tokenizer(
        texts, padding="max_length", max_length=CLIP_TOKENS, return_tensors="pt"
    ).input_ids
    t5_ids = pipe.tokenizer_2(
        texts, padding="max_length", max_length=TOKENS, return_tensors="pt"
    ).input_ids
    side = math.isqrt(data.latents.shape[1])
    places = pipe._prepare_latent_image_ids(1, side, side, "cpu", torch.float32)
    shift = math.exp(calculate_shift(data.latents.shape[1]))  # where sampling will put its steps

    def error() -> Tensor:
        latents, caption = WORLD.batch(data, 128, wrong, generator)
        distinct, place = torch.unique(caption, return_inverse=True)
        pooled = pipe.text_encoder(ids[distinct]).pooler_output
        text = pipe.text_encoder_2(t5_ids[distinct])[0]

        def velocity(x: Tensor, sigma: Tensor) -> Tensor:
            predicted: Tensor = pipe.transformer(
                hidden_states=x,
                timestep=sigma,
                pooled_projections=pooled[place],
                encoder_hidden_states=text[place],
                txt_ids=torch.zeros(TOKENS, 3),
                img_ids=places,
                return_dict=False,
            )[0]
            return predicted

        return flow_error(velocity, latents, shift, generator)

    train_denoiser([pipe.transformer, pipe.text_encoder, pipe.text_encoder_2], error, iterations)


def measure(pipe: FluxPipeline, guidance: float, each: int = 4) -> dict[str, float]:
    """What the judge of the reward `shapes` makes of full-step ODE samples of every caption."""
    prompts = list(WORLD.texts) * each
    pictures = pipe(
        prompts,
        negative_prompt=[""] * len(prompts),
        true_cfg_scale=guidance,
        height=PIXELS,
        width=PIXELS,
        num_inference_steps=10,
        max_sequence_length=TOKENS,
        output_type="pt",
        generator=torch.Generator().manual_seed(3),
    ).images
    return judged("shapes", pictures, prompts)


def main() -> None:
    options = arguments(__doc__, "flux", wrong=0.14, iterations=4000).parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    began = time.perf_counter()
    vae = (
        AutoencoderKL.from_pretrained(PACKAGE / "tiny" / "sd35" / "vae")
        .requires_grad_(False)
        .eval()
    )
    vae.register_to_config(_name_or_path="tiny/sd35/vae")  # not where it lies on this machine
    data = pack(vae, encoded(vae, DRAW, 12_000, torch.Generator().manual_seed(1)))
    words, t5_words = tokenizer(WORLD.texts), t5_tokenizer(WORLD.texts)
    pipe = FluxPipeline(
        scheduler=scheduler(),
        vae=vae,
        text_encoder=pooled_encoder(words),
        tokenizer=words,
        text_encoder_2=text_encoder(t5_words),
        tokenizer_2=t5_words,
        transformer=denoiser(),
    )
    pipe.set_progress_bar_config(disable=True)
    train(pipe, data, options.wrong, options.iterations)
    publish(pipe, options.output)
    print(
        f"{time.perf_counter() - began:.0f} s; guidance 1: {measure(pipe, 1.0)}; guidance "
        f"3: {measure(pipe, 3.0)}"
    )


if __name__ == "__main__":
    main()
