"""What the trainings of the tiny pipelines share: data with wrong captions, flow matching, and
a finished folder."""

import argparse
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

import treerl
from treerl.engine.task import Samples

PACKAGE = Path(__file__).resolve().parent.parent / "treerl"
# every third caption, diagonally, so that each attribute's values all stay in the training part
HELD_OUT = 3

Draw = Callable[
    [int, torch.Generator], tuple[Tensor, Tensor]
]  # how many -> indices of captions, what they show
Losses = Callable[
    [], tuple[Tensor, Tensor]
]  # the loss of one batch, and the squared errors to report
C = TypeVar("C", bound="Captioned")


class Captioned(Protocol):
    """A caption as a prompt."""

    @property
    def text(self) -> str: ...


@dataclass(frozen=True)
class Data:
    """Rendered samples in latent space."""

    latents: Tensor  # [N, ...]
    caption: Tensor  # [N] index of the caption


@dataclass(frozen=True)
class World:
    """Captions that are all combinations of the values of some attributes, the last varying
    fastest."""

    texts: Sequence[str]
    sizes: tuple[int, ...]  # how many values each attribute has

    def attributes(self, caption: Tensor) -> Tensor:
        """Which value each attribute has, `[N, A]`, of captions of the indices `[N]`."""
        return caption[:, None] // self._stride % torch.tensor(self.sizes)

    def mislabel(self, caption: Tensor, wrong: float, generator: torch.Generator) -> Tensor:
        """Captions `[N]` with each attribute replaced by another value with chance `wrong`."""
        size, attribute = torch.tensor(self.sizes), self.attributes(caption)
        other = 1 + (torch.rand(attribute.shape, generator=generator) * (size - 1)).long()
        swap = torch.rand(attribute.shape, generator=generator) < wrong
        return (torch.where(swap, (attribute + other) % size, attribute) * self._stride).sum(1)

    def batch(
        self, data: Data, count: int, wrong: float, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Latents and their captions, often wrong; a tenth is empty (the last index), for
        classifier-free guidance."""
        row = torch.randint(len(data.latents), (count,), generator=generator)
        caption = self.mislabel(data.caption[row], wrong, generator)
        caption[torch.rand(count, generator=generator) < 0.1] = len(self.texts)
        return data.latents[row], caption

    def write_prompts(self, name: str) -> None:
        """Hold out every third caption along the diagonal of the attributes."""
        folder = PACKAGE / "prompts"
        folder.mkdir(exist_ok=True)
        held = self.attributes(torch.arange(len(self.texts))).sum(1) % HELD_OUT == 0
        for part, wanted in (("train", False), ("heldout", True)):
            rows = [
                text
                for text, is_held in zip(self.texts, held.tolist(), strict=True)
                if is_held == wanted
            ]
            (folder / f"{name}-{part}.txt").write_text(
                "".join(f"{text}\n" for text in rows), encoding="utf-8"
            )

    @property
    def _stride(self) -> Tensor:
        return torch.tensor(
            [math.prod(self.sizes[place + 1 :]) for place in range(len(self.sizes))]
        )


def drawing(
    captions: Sequence[C], render: Callable[[Sequence[C], torch.Generator], Tensor]
) -> Draw:
    """Draws indices of random captions and what they show."""

    def draw(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        chosen = torch.randint(len(captions), (count,), generator=generator)
        return chosen, render([captions[row] for row in chosen.tolist()], generator)

    return draw


def train_autoencoder(
    vae: Any,
    decode: Callable[[Tensor], Tensor],
    draw: Callable[[], Tensor],
    iterations: int,
    generator: torch.Generator,
) -> None:
    """Reconstruction with a little of the Kullback-Leibler divergence, of samples `[N, 3, ...]`
    in [0, 1]."""

    def losses() -> tuple[Tensor, Tensor]:
        samples = draw() * 2 - 1
        posterior = vae.encode(samples).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator)
        decoded = decode(posterior.mean + posterior.std * noise)
        loss, error = reconstruction(samples, decoded)
        return loss + 2e-4 * posterior.kl().mean(), error

    fit("autoencoder", list(vae.parameters()), losses, iterations, warmup=50, decay=0)
    vae.eval().requires_grad_(False)


def reconstruction(samples: Tensor, decoded: Tensor) -> tuple[Tensor, Tensor]:
    """The loss of what is decoded, and its squared errors."""
    # the object fills a tenth of the picture: without a weight the background would be learnt alone
    shown = (samples - samples[..., :1, :1]).abs().sum(1, keepdim=True) > 0.1
    error = (decoded - samples).square()
    return (error * (1 + 4 * shown)).mean(), error


def encoded(vae: Any, draw: Draw, count: int, generator: torch.Generator) -> Data:
    """`count` samples through the encoder."""
    captions, latents = [], []
    with torch.no_grad():
        for _ in range(count // 500):
            caption, samples = draw(500, generator)
            captions.append(caption)
            latents.append(vae.encode(samples * 2 - 1).latent_dist.mean)
    return Data(torch.cat(latents), torch.cat(captions))


def train_denoiser(
    parts: Sequence[nn.Module], error: Callable[[], Tensor], iterations: int
) -> None:
    """Trains the denoiser and its text encoders on the squared errors of batches; keeps the
    mean of late weights."""

    def losses() -> tuple[Tensor, Tensor]:
        loss = error()
        return loss.mean(), loss

    parameters = [parameter for part in parts for parameter in part.parameters()]
    average = fit("denoiser", parameters, losses, iterations, warmup=100, decay=0.01)
    with torch.no_grad():
        for parameter, mean in zip(parameters, average, strict=True):
            parameter.copy_(mean)
    for part in parts:
        part.eval().requires_grad_(False)


def flow_error(
    velocity: Callable[[Tensor, Tensor], Tensor],
    latents: Tensor,
    shift: float,
    generator: torch.Generator,
) -> Tensor:
    """Squared error of the velocity at random noise levels, most of them where a shift puts the
    steps."""
    u = torch.rand(len(latents), generator=generator)
    even = torch.rand(len(latents), generator=generator) < 0.3
    sigma = torch.where(even, u, shift * u / (1 + (shift - 1) * u))
    noise = torch.randn(latents.shape, generator=generator)
    wide = sigma.reshape(-1, *[1] * (latents.ndim - 1))
    return (velocity((1 - wide) * latents + wide * noise, sigma) - (noise - latents)).square()


def fit(
    what: str,
    parameters: list[nn.Parameter],
    losses: Losses,
    iterations: int,
    *,
    warmup: int,
    decay: float,
) -> list[Tensor]:
    """AdamW with a cosine of the learning rate; returns the exponential mean of the weights."""
    optimizer = torch.optim.AdamW(parameters, weight_decay=decay, fused=True)
    average = [parameter.detach().clone() for parameter in parameters]
    for iteration in range(iterations):
        for group in optimizer.param_groups:
            cosine = 0.5 + 0.5 * math.cos(math.pi * iteration / iterations)
            group["lr"] = 2e-3 * min(1, (iteration + 1) / warmup) * cosine
        loss, error = losses()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        weight = 1 - min(0.998, (iteration + 1) / (iteration + 10))
        torch._foreach_lerp_(average, [parameter.detach() for parameter in parameters], weight)
        if iteration % 100 == 0 or iteration == iterations - 1:
            print(
                f"{what} {iteration + 1}/{iterations}: error {float(error.detach().mean()):.4f}",
                flush=True,
            )
    return average


def judged(reward: str, samples: Tensor, prompts: list[str]) -> dict[str, float]:
    """What the judge of a reward makes of samples: the mean of each of its measures."""
    measures = treerl.load("rewards", reward)().measures(Samples.of(samples, prompts))
    return {name: round(float(value.mean()), 3) for name, value in measures.items()}


def publish(pipe: Any, folder: Path) -> None:
    """Saves the pipeline beside the folder and renames it into place, so that no half of one is
    ever found there."""
    draft = folder.with_name(folder.name + ".new")
    pipe.save_pretrained(draft)
    shutil.rmtree(folder, ignore_errors=True)
    draft.rename(folder)


def arguments(
    description: str | None, name: str, wrong: float, iterations: int
) -> argparse.ArgumentParser:
    """The options that the trainings share."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=PACKAGE / "tiny" / name)
    parser.add_argument(
        "--wrong", type=float, default=wrong, help="chance that an attribute of a caption is wrong"
    )
    parser.add_argument("--iterations", type=int, default=iterations, help="of the denoiser")
    return parser
