"""Trains the built-in tiny Stable Diffusion 3 from scratch on rendered, captioned shapes, and splits their captions.

    python scripts/train_tiny_sd3.py            # about 9 minutes of one CPU core; writes treerl/tiny/sd35 and prompts

Deterministic: the same machine, thread count and versions give the same weights. A share of the captions it learns from
is wrong on purpose (`--wrong`), so that it draws clean pictures of often the wrong thing: what reinforcement learning
is to mend.
"""

import argparse
import math
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, StableDiffusion3Pipeline
from tiny_sd3 import TEXT, TOKENS, autoencoder, denoiser, text_encoder, tokenizer
from torch import Tensor, nn

import treerl
from treerl.shapes import COLOURS, PLACES, SHAPES, Caption, every_caption, render

PACKAGE = Path(__file__).resolve().parent.parent / "treerl"
T5_TOKENS = 1  # the pipeline appends as many empty T5 tokens as it is told; it must be told at least one
HELD_OUT = 3  # every third caption, diagonally, so that each colour, shape and place stays in the training part


@dataclass(frozen=True)
class Data:
    """Rendered pictures in latent space."""

    latents: Tensor  # [N, 4, 8, 8], unit variance
    caption: Tensor  # [N] index of the caption


def train_autoencoder(iterations: int, generator: torch.Generator) -> AutoencoderKL:
    """An autoencoder of 32x32 pictures to 4x8x8 latents."""
    vae = autoencoder()
    optimizer = torch.optim.AdamW(vae.parameters(), weight_decay=0, fused=True)
    for iteration in range(iterations):
        anneal(optimizer, 2e-3, iteration, iterations, warmup=50)
        pictures = draw(32, generator)[1] * 2 - 1
        posterior = vae.encode(pictures).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator)
        decoded = vae.decode(posterior.mean + posterior.std * noise).sample
        # the object fills a tenth of the picture: without a weight the background would be learnt alone
        shown = (pictures - pictures[:, :, :1, :1]).abs().sum(1, keepdim=True) > 0.1
        error = (decoded - pictures).square()
        loss = (error * (1 + 4 * shown)).mean() + 2e-4 * posterior.kl().mean()
        step(optimizer, loss, list(vae.parameters()))
        report("autoencoder", iteration, iterations, error)
    return vae.eval().requires_grad_(False)


def dataset(vae: AutoencoderKL, count: int, generator: torch.Generator) -> Data:
    """`count` pictures through the encoder; sets its scaling so that latents have mean 0 and variance 1."""
    captions, latents = [], []
    with torch.no_grad():
        for _ in range(count // 500):
            caption, pictures = draw(500, generator)
            captions.append(caption)
            latents.append(vae.encode(pictures * 2 - 1).latent_dist.mean)
    found = torch.cat(latents)
    shift, scale = float(found.mean()), 1 / float(found.std())
    vae.register_to_config(shift_factor=shift, scaling_factor=scale)
    return Data((found - shift) * scale, torch.cat(captions))


def train_denoiser(pipe: StableDiffusion3Pipeline, data: Data, wrong: float, iterations: int) -> None:
    """Flow matching, text encoders included, on captions of which each attribute is wrong with chance `wrong`."""
    generator = torch.Generator().manual_seed(2)
    parts = [pipe.transformer, pipe.text_encoder, pipe.text_encoder_2]
    parameters = [parameter for part in parts for parameter in part.parameters()]
    optimizer = torch.optim.AdamW(parameters, weight_decay=0.01, fused=True)
    average = [parameter.detach().clone() for parameter in parameters]
    texts = [caption.text for caption in every_caption()] + [""]
    ids = pipe.tokenizer(texts, padding="max_length", max_length=TOKENS, return_tensors="pt").input_ids
    for iteration in range(iterations):
        anneal(optimizer, 2e-3, iteration, iterations, warmup=100)
        row = torch.randint(len(data.latents), (128,), generator=generator)
        caption = mislabel(data.caption[row], wrong, generator)
        caption[torch.rand(128, generator=generator) < 0.1] = len(texts) - 1  # for classifier-free guidance
        error = flow_error(pipe, data.latents[row], ids, caption, generator)
        step(optimizer, error.mean(), parameters)
        torch._foreach_lerp_(
            average, [p.detach() for p in parameters], 1 - min(0.998, (iteration + 1) / (iteration + 10))
        )
        report("denoiser", iteration, iterations, error)
    with torch.no_grad():
        for parameter, mean in zip(parameters, average, strict=True):
            parameter.copy_(mean)
    for part in parts:
        part.eval().requires_grad_(False)


def flow_error(
    pipe: StableDiffusion3Pipeline, latents: Tensor, ids: Tensor, caption: Tensor, generator: torch.Generator
) -> Tensor:
    """Squared error of the velocity at random noise levels, most of them where a shift of 3 puts the steps."""
    distinct, place = torch.unique(caption, return_inverse=True)
    encoded = [one(ids[distinct], output_hidden_states=True) for one in (pipe.text_encoder, pipe.text_encoder_2)]
    text = torch.cat([one.hidden_states[-2] for one in encoded], dim=-1)
    text = torch.cat([text, torch.zeros(len(distinct), T5_TOKENS, 2 * TEXT)], dim=1)
    pooled = torch.cat([one.text_embeds for one in encoded], dim=-1)
    u = torch.rand(len(latents), generator=generator)
    even = torch.rand(len(latents), generator=generator) < 0.3
    sigma = torch.where(even, u, 3 * u / (1 + 2 * u))
    noise = torch.randn(latents.shape, generator=generator)
    wide = sigma[:, None, None, None]
    velocity: Tensor = pipe.transformer(
        hidden_states=(1 - wide) * latents + wide * noise,
        timestep=sigma * 1000,
        encoder_hidden_states=text[place],
        pooled_projections=pooled[place],
        return_dict=False,
    )[0]
    return (velocity - (noise - latents)).square()


def mislabel(caption: Tensor, wrong: float, generator: torch.Generator) -> Tensor:
    """Captions `[N]` with each attribute replaced by another value with chance `wrong`."""
    size = torch.tensor([len(COLOURS), len(SHAPES), len(PLACES)])
    stride = torch.tensor([len(SHAPES) * len(PLACES), len(PLACES), 1])
    attribute = caption[:, None] // stride % size
    other = 1 + (torch.rand(attribute.shape, generator=generator) * (size - 1)).long()
    swap = torch.rand(attribute.shape, generator=generator) < wrong
    return (torch.where(swap, (attribute + other) % size, attribute) * stride).sum(1)


def draw(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Indices of random captions and their pictures."""
    captions = every_caption()
    chosen = torch.randint(len(captions), (count,), generator=generator)
    return chosen, render([captions[row] for row in chosen.tolist()], generator)


def anneal(optimizer: torch.optim.Optimizer, peak: float, iteration: int, iterations: int, warmup: int) -> None:
    for group in optimizer.param_groups:
        group["lr"] = peak * min(1, (iteration + 1) / warmup) * (0.5 + 0.5 * math.cos(math.pi * iteration / iterations))


def step(optimizer: torch.optim.Optimizer, loss: Tensor, parameters: list[nn.Parameter]) -> None:
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()


def report(what: str, iteration: int, iterations: int, error: Tensor) -> None:
    if iteration % 100 == 0 or iteration == iterations - 1:
        print(f"{what} {iteration + 1}/{iterations}: error {float(error.detach().mean()):.4f}", flush=True)


def measure(pipe: StableDiffusion3Pipeline, guidance: float, each: int = 4) -> dict[str, float]:
    """What the judge of the reward `shapes` makes of full-step ODE samples of every caption."""
    prompts = [caption.text for caption in every_caption()] * each
    pictures = pipe(
        prompts,
        num_inference_steps=10,
        guidance_scale=guidance,
        max_sequence_length=T5_TOKENS,
        output_type="pt",
        generator=torch.Generator().manual_seed(3),
    ).images
    measures = treerl.load("rewards", "shapes")().measures(pictures, prompts)
    return {name: round(float(value.mean()), 3) for name, value in measures.items()}


def write_prompts(folder: Path) -> None:
    """Hold out every third caption along the diagonal of colour, shape and place."""
    folder.mkdir(exist_ok=True)
    held = [caption for caption in every_caption() if diagonal(caption) % HELD_OUT == 0]
    rest = [caption for caption in every_caption() if diagonal(caption) % HELD_OUT]
    for name, captions in (("train", rest), ("heldout", held)):
        text = "".join(f"{caption.text}\n" for caption in captions)
        (folder / f"shapes-{name}.txt").write_text(text, encoding="utf-8")


def diagonal(caption: Caption) -> int:
    return list(COLOURS).index(caption.colour) + SHAPES.index(caption.shape) + list(PLACES).index(caption.place)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=PACKAGE / "tiny" / "sd35")
    parser.add_argument("--wrong", type=float, default=0.14, help="chance that an attribute of a caption is wrong")
    parser.add_argument("--autoencoder-iterations", type=int, default=1500)
    parser.add_argument("--iterations", type=int, default=4000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    began = time.perf_counter()
    vae = train_autoencoder(options.autoencoder_iterations, generator)
    data = dataset(vae, 12_000, generator)
    words = tokenizer([caption.text for caption in every_caption()])
    pipe = StableDiffusion3Pipeline(
        transformer=denoiser(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae,
        text_encoder=text_encoder(words),
        tokenizer=words,
        text_encoder_2=text_encoder(words),
        tokenizer_2=words,
        text_encoder_3=None,
        tokenizer_3=None,
    )
    pipe.set_progress_bar_config(disable=True)
    train_denoiser(pipe, data, options.wrong, options.iterations)
    draft = options.output.with_name(options.output.name + ".new")
    pipe.save_pretrained(draft)
    shutil.rmtree(options.output, ignore_errors=True)
    draft.rename(options.output)
    write_prompts(PACKAGE / "prompts")
    print(f"{time.perf_counter() - began:.0f} s; guidance 1: {measure(pipe, 1.0)}; guidance 3: {measure(pipe, 3.0)}")


if __name__ == "__main__":
    main()
