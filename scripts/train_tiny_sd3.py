"""Trains the built-in tiny Stable Diffusion 3 from scratch on rendered, captioned shapes, and
splits their captions.

    # about 9 minutes of one CPU core; writes treerl/tiny/sd35 and prompts
    python scripts/train_tiny_sd3.py

Deterministic: the same machine, thread count and versions give the same weights. A share of the
captions it learns from
is wrong on purpose (`--wrong`), so that it draws clean pictures of often the wrong thing: what
reinforcement learning
is to mend.
"""

import time

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, StableDiffusion3Pipeline
from pretraining import (
    Data,
    World,
    arguments,
    drawing,
    encoded,
    flow_error,
    judged,
    publish,
    train_autoencoder,
    train_denoiser,
)
from tiny_sd3 import TEXT, TOKENS, autoencoder, denoiser, text_encoder, tokenizer
from torch import Tensor

from treerl.toy.drawing import COLOURS, SHAPES
from treerl.toy.shapes import PLACES, ShapeCaption, render

T5_TOKENS = (
    1  # the pipeline appends as many empty T5 tokens as it is told; it must be told at least one
)
SHIFT = 3.0
WORLD = World(
    [caption.text for caption in ShapeCaption.every()], (len(COLOURS), len(SHAPES), len(PLACES))
)
DRAW = drawing(ShapeCaption.every(), render)


def normalise(vae: AutoencoderKL, data: Data) -> Data:
    """Sets the scaling of the autoencoder, and returns the data in those units: mean 0 and
    variance 1."""
    shift, scale = float(data.latents.mean()), 1 / float(data.latents.std())
    vae.register_to_config(shift_factor=shift, scaling_factor=scale)
    return Data((data.latents - shift) * scale, data.caption)


def train(pipe: StableDiffusion3Pipeline, data: Data, wrong: float, iterations: int) -> None:
    """Flow matching, text encoders included, on captions of which each attribute is wrong with
    chance `wrong`."""
    generator = torch.Generator().manual_seed(2)
    encoders = [pipe.text_encoder, pipe.text_encoder_2]
    ids = pipe.tokenizer(
        [*WORLD.texts, ""], padding="max_length", max_length=TOKENS, return_tensors="pt"
    ).input_ids

    def error() -> Tensor:
        latents, caption = WORLD.batch(data, 128, wrong, generator)
        distinct, place = torch.unique(caption, return_inverse=True)
        outputs = [encoder(ids[distinct], output_hidden_states=True) for encoder in encoders]
        text = torch.cat([output.hidden_states[-2] for output in outputs], dim=-1)
        text = torch.cat([text, torch.zeros(len(distinct), T5_TOKENS, 2 * TEXT)], dim=1)
        pooled = torch.cat([output.text_embeds for output in outputs], dim=-1)

        def velocity(x: Tensor, sigma: Tensor) -> Tensor:
            predicted: Tensor = pipe.transformer(
                hidden_states=x,
                timestep=sigma * 1000,
                encoder_hidden_states=text[place],
                pooled_projections=pooled[place],
                return_dict=False,
            )[0]
            return predicted

        return flow_error(velocity, latents, SHIFT, generator)

    train_denoiser([pipe.transformer, *encoders], error, iterations)


def measure(pipe: StableDiffusion3Pipeline, guidance: float, each: int = 4) -> dict[str, float]:
    """What the judge of the reward `shapes` makes of full-step ODE samples of every caption."""
    prompts = list(WORLD.texts) * each
    pictures = pipe(
        prompts,
        num_inference_steps=10,
        guidance_scale=guidance,
        max_sequence_length=T5_TOKENS,
        output_type="pt",
        generator=torch.Generator().manual_seed(3),
    ).images
    return judged("shapes", pictures, prompts)


def main() -> None:
    parser = arguments(__doc__, "sd35", wrong=0.14, iterations=4000)
    parser.add_argument("--autoencoder-iterations", type=int, default=1500)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    began = time.perf_counter()
    vae = autoencoder()
    iterations = options.autoencoder_iterations
    train_autoencoder(
        vae, lambda z: vae.decode(z).sample, lambda: DRAW(32, generator)[1], iterations, generator
    )
    data = normalise(vae, encoded(vae, DRAW, 12_000, generator))
    words = tokenizer(WORLD.texts)
    pipe = StableDiffusion3Pipeline(
        transformer=denoiser(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=SHIFT),
        vae=vae,
        text_encoder=text_encoder(words),
        tokenizer=words,
        text_encoder_2=text_encoder(words),
        tokenizer_2=words,
        text_encoder_3=None,
        tokenizer_3=None,
    )
    pipe.set_progress_bar_config(disable=True)
    train(pipe, data, options.wrong, options.iterations)
    publish(pipe, options.output)
    WORLD.write_prompts("shapes")
    print(
        f"{time.perf_counter() - began:.0f} s; guidance 1: {measure(pipe, 1.0)}; guidance "
        f"3: {measure(pipe, 3.0)}"
    )


if __name__ == "__main__":
    main()
