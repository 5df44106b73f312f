"""Trains the built-in tiny Wan from scratch on rendered, captioned videos of moving shapes, and
splits their captions.

    # about 20 minutes of one CPU core; writes treerl/tiny/wan and prompts
    python scripts/train_tiny_wan.py

Deterministic: the same machine, thread count and versions give the same weights. A share of the
captions it learns from
is wrong on purpose (`--wrong`), so that it draws clean videos of often the wrong thing: what
reinforcement learning
is to mend.
"""

import time

import torch
from diffusers import AutoencoderKLWan, WanPipeline
from diffusers.models.autoencoders.autoencoder_kl_wan import unpatchify
from pretraining import (
    Data,
    World,
    arguments,
    drawing,
    encoded,
    fit,
    flow_error,
    judged,
    publish,
    reconstruction,
    train_autoencoder,
    train_denoiser,
)
from tiny_t5 import TOKENS, tokenizer
from tiny_wan import SHIFT, autoencoder, denoiser, scheduler, text_encoder
from torch import Tensor

from treerl.toy.drawing import COLOURS, PIXELS, SHAPES
from treerl.toy.moving import DIRECTIONS, FRAMES, MovingCaption, render

WORLD = World(
    [caption.text for caption in MovingCaption.every()],
    (len(COLOURS), len(SHAPES), len(DIRECTIONS)),
)
BATCH = 8  # of videos, for the autoencoder
DRAW = drawing(
    MovingCaption.every(), lambda captions, generator: render(captions, generator).transpose(1, 2)
)


def unclamped(vae: AutoencoderKLWan, latents: Tensor) -> Tensor:
    """What the decoder makes before it is clamped, which would stop the gradient where a pixel
    is too bright."""
    parts: list[Tensor] = []
    hook = vae.decoder.register_forward_hook(lambda *call: parts.append(call[-1]))
    vae.decode(latents)
    hook.remove()
    return unpatchify(torch.cat(parts, dim=2), vae.config.patch_size)  # type: ignore[no-any-return]


def sharpen(vae: AutoencoderKLWan, iterations: int) -> None:
    """More training of the decoder alone, with less noise: outlines become sharper, and latents
    stay what they are."""
    generator = torch.Generator().manual_seed(4)
    parameters = [*vae.post_quant_conv.parameters(), *vae.decoder.parameters()]

    def losses() -> tuple[Tensor, Tensor]:
        samples = DRAW(BATCH, generator)[1] * 2 - 1
        posterior = vae.encode(samples).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator)
        return reconstruction(samples, unclamped(vae, posterior.mean + 0.3 * posterior.std * noise))

    for parameter in parameters:
        parameter.requires_grad_(True)
    fit("decoder", parameters, losses, iterations, warmup=50, decay=0)
    vae.requires_grad_(False)


def normalise(vae: AutoencoderKLWan, data: Data) -> Data:
    """Sets the means and deviations of the latents' channels, and returns the data in those
    units."""
    mean, deviation = data.latents.mean((0, 2, 3, 4)), data.latents.std((0, 2, 3, 4))
    vae.register_to_config(latents_mean=mean.tolist(), latents_std=deviation.tolist())
    return Data((data.latents - _wide(mean)) / _wide(deviation), data.caption)


def train(pipe: WanPipeline, data: Data, wrong: float, iterations: int) -> None:
    """Flow matching, text encoder included, on captions of which each attribute is wrong with
    chance `wrong`."""
    generator = torch.Generator().manual_seed(2)
    words = pipe.tokenizer(
        [*WORLD.texts, ""], padding="max_length", max_length=TOKENS, return_tensors="pt"
    )

    def error() -> Tensor:
        latents, caption = WORLD.batch(data, 64, wrong, generator)
        distinct, place = torch.unique(caption, return_inverse=True)
        mask = words.attention_mask[distinct]
        text = (
            pipe.text_encoder(words.input_ids[distinct], mask).last_hidden_state * mask[:, :, None]
        )

        def velocity(x: Tensor, sigma: Tensor) -> Tensor:
            predicted: Tensor = pipe.transformer(x, sigma * 1000, text[place], return_dict=False)[0]
            return predicted

        return flow_error(velocity, latents, SHIFT, generator)

    train_denoiser([pipe.transformer, pipe.text_encoder], error, iterations)


@torch.no_grad()
def sample(pipe: WanPipeline, prompts: list[str], guidance: float, steps: int = 10) -> Tensor:
    """Videos `[N, F, 3, H, W]` in [0, 1] by first-order steps over the pipeline's noise levels."""
    text, empty = pipe.encode_prompt(prompts, max_sequence_length=TOKENS)
    pipe.scheduler.set_timesteps(steps)
    generator = torch.Generator().manual_seed(3)
    x = pipe.prepare_latents(
        len(prompts), pipe.vae.z_dim, PIXELS, PIXELS, FRAMES, torch.float32, generator=generator
    )
    for now, then in zip(pipe.scheduler.sigmas[:-1], pipe.scheduler.sigmas[1:], strict=True):
        time_of_all = (now * 1000).expand(len(x))
        velocity = pipe.transformer(x, time_of_all, text, return_dict=False)[0]
        if guidance != 1:
            free = pipe.transformer(x, time_of_all, empty, return_dict=False)[0]
            velocity = free + guidance * (velocity - free)
        x = x + (then - now) * velocity
    config = pipe.vae.config
    latents = x * _wide(torch.tensor(config.latents_std)) + _wide(torch.tensor(config.latents_mean))
    videos: Tensor = pipe.vae.decode(latents, return_dict=False)[0]
    return (videos / 2 + 0.5).transpose(1, 2)


def measure(pipe: WanPipeline, guidance: float, each: int = 4) -> dict[str, float]:
    """What the judge of the reward `moving-shapes` makes of full-step ODE samples of every
    caption."""
    prompts = list(WORLD.texts) * each
    return judged("moving-shapes", sample(pipe, prompts, guidance), prompts)


def _wide(channels: Tensor) -> Tensor:
    return channels[None, :, None, None, None]


def main() -> None:
    parser = arguments(__doc__, "wan", wrong=0.12, iterations=3600)
    parser.add_argument("--autoencoder-iterations", type=int, default=1500)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    began = time.perf_counter()
    vae = autoencoder()
    iterations = options.autoencoder_iterations
    train_autoencoder(
        vae, lambda z: unclamped(vae, z), lambda: DRAW(BATCH, generator)[1], iterations, generator
    )
    sharpen(vae, iterations)
    data = normalise(vae, encoded(vae, DRAW, 8_000, generator))
    words = tokenizer(WORLD.texts)
    pipe = WanPipeline(
        tokenizer=words,
        text_encoder=text_encoder(words),
        vae=vae,
        scheduler=scheduler(),
        transformer=denoiser(),
    )
    train(pipe, data, options.wrong, options.iterations)
    publish(pipe, options.output)
    WORLD.write_prompts("moving-shapes")
    print(
        f"{time.perf_counter() - began:.0f} s; guidance 1: {measure(pipe, 1.0)}; guidance "
        f"3: {measure(pipe, 3.0)}"
    )


if __name__ == "__main__":
    main()
