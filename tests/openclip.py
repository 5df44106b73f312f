# mypy: disable-error-code="no-any-return,operator,union-attr"
"""open_clip's two towers written out in plain torch, with its names of weights: the reference
of HPSv2's score."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

WIDTH, HEADS, TEXT, READING, OUT, LAYERS, PATCH, LENGTH, WORDS = 160, 2, 128, 2, 24, 2, 32, 77, 514


class Block(nn.Module):
    """A residual attention block."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.Module()
        self.mlp.c_fc, self.mlp.c_proj = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, attn_mask=mask, need_weights=False)[0]
        return x + self.mlp.c_proj(nn.functional.gelu(self.mlp.c_fc(self.ln_2(x))))


def stack(width: int, heads: int) -> nn.Module:
    made = nn.Module()
    made.resblocks = nn.ModuleList(Block(width, heads) for _ in range(LAYERS))
    return made


class Towers(nn.Module):
    """A small CLIP as open_clip builds it, of random weights."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.visual = nn.Module()
        self.visual.class_embedding = nn.Parameter(torch.randn(WIDTH))
        self.visual.positional_embedding = nn.Parameter(torch.randn((224 // PATCH) ** 2 + 1, WIDTH))
        self.visual.conv1 = nn.Conv2d(3, WIDTH, PATCH, PATCH, bias=False)
        self.visual.ln_pre, self.visual.ln_post = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.visual.transformer = stack(WIDTH, HEADS)
        self.visual.proj = nn.Parameter(torch.randn(WIDTH, OUT))
        self.positional_embedding = nn.Parameter(torch.randn(LENGTH, TEXT))
        self.token_embedding = nn.Embedding(WORDS, TEXT)
        self.transformer = stack(TEXT, READING)
        self.ln_final = nn.LayerNorm(TEXT)
        self.text_projection = nn.Parameter(torch.randn(TEXT, OUT))
        self.logit_scale = nn.Parameter(torch.tensor(4.6))
        for parameter in self.parameters():  # biases and norms, too, must count
            parameter.data.add_(torch.randn(parameter.shape), alpha=0.1)

    def see(self, pixels: Tensor) -> Tensor:
        visual = self.visual
        cells = visual.conv1(pixels).flatten(2).transpose(1, 2)
        first = visual.class_embedding.expand(len(cells), 1, -1)
        x = visual.ln_pre(torch.cat([first, cells], 1) + visual.positional_embedding)
        for block in visual.transformer.resblocks:
            x = block(x)
        return visual.ln_post(x[:, 0]) @ visual.proj

    def read(self, ids: Tensor) -> Tensor:
        x = self.token_embedding(ids) + self.positional_embedding[: ids.shape[1]]
        mask = torch.full((ids.shape[1],) * 2, float("-inf")).triu(1)
        for block in self.transformer.resblocks:
            x = block(x, mask)
        x = self.ln_final(x)
        return (
            x[torch.arange(len(x)), ids.argmax(-1)] @ self.text_projection
        )  # the end mark has the highest id


def letterboxed(picture: Image.Image) -> Tensor:
    """HPSv2's own transform: longest side to 224, black borders, CLIP's normalisation."""
    width, height = picture.size
    scale = 224 / max(height, width)
    new_height, new_width = round(height * scale), round(width * scale)
    pixels = (
        np.asarray(
            picture.resize((new_width, new_height), Image.Resampling.BICUBIC), dtype=np.float32
        )
        / 255
    )
    down, right = 224 - new_height, 224 - new_width
    pixels = np.pad(
        pixels, ((down // 2, down - down // 2), (right // 2, right - right // 2), (0, 0))
    )
    mean, std = (
        np.array([0.48145466, 0.4578275, 0.40821073]),
        np.array([0.26862954, 0.26130258, 0.27577711]),
    )
    return torch.from_numpy(((pixels - mean) / std).transpose(2, 0, 1)).float()
