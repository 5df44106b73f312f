"""HPSv2 (arXiv 2306.09341): a CLIP ViT-H/14 tuned on which images people prefer for a prompt."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from PIL import Image
from torch import Tensor
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from treerl.errors import InputError, printable

from . import _contrast  # noqa: TID251
from ._learned import Learned, boxed  # noqa: TID251
from ._openclip import remapped  # noqa: TID251

REPOSITORY = "xswu/HPSv2"
FILES = {"2.1": "HPS_v2.1_compressed.pt", "2.0": "HPS_v2_compressed.pt"}
WORDS = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"


@dataclass
class HPS(Learned):
    """The cosine of the embeddings of image and prompt, about 0.2 to 0.35.

    Images are letterboxed, not cropped.
    """

    title: ClassVar[str] = "hps"
    version: str = "2.1"
    tokenizer: str | None = None  # a folder or a hub id of CLIP's; null is the published one

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.version not in FILES:
            raise ValueError(f"version: expected {' or '.join(FILES)}, got {self.version}")

    def read(self) -> None:
        named = f"reward {self.title}: its weights"
        state = self.weights(REPOSITORY, FILES[self.version])
        try:
            state = remapped(state)
        except KeyError as error:
            raise InputError(
                f"{named} are of another model: unknown tensor '{printable(error.args[0], 80)}'"
            ) from error
        towers = self.filled(lambda: CLIPModel(architecture(state)), state)
        self.towers: Any = self.placed(towers)
        self.words = self.pretrained(CLIPTokenizer, self.tokenizer or WORDS, "tokenizer")

    def prepared(self, image: Image.Image) -> Image.Image:
        return boxed(image)

    def rate(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        return _contrast.alike(self.towers, self.words, images, prompts)


def architecture(state: dict[str, Tensor]) -> CLIPConfig:
    """The configuration that these tensors are of.

    A head of the text is 64 wide, of the image 80, as in ViT-H/14.
    """
    patch = state["vision_model.embeddings.patch_embedding.weight"]
    words = state["text_model.embeddings.token_embedding.weight"]
    common = {"hidden_act": "gelu", "projection_dim": len(state["visual_projection.weight"])}
    vision = _tower(state, "vision_model", patch.shape[0], 80) | common
    text = _tower(state, "text_model", words.shape[1], 64) | common
    cells = len(state["vision_model.embeddings.position_embedding.weight"]) - 1
    vision |= {"patch_size": patch.shape[-1], "image_size": patch.shape[-1] * round(cells**0.5)}
    last = len(words) - 1  # the end mark
    text |= {
        "vocab_size": len(words),
        "bos_token_id": last - 1,
        "eos_token_id": last,
        "pad_token_id": 0,
    }
    text |= {
        "max_position_embeddings": len(state["text_model.embeddings.position_embedding.weight"])
    }
    return CLIPConfig(
        text_config=text, vision_config=vision, projection_dim=common["projection_dim"]
    )


def _tower(state: dict[str, Tensor], name: str, width: int, head: int) -> dict[str, object]:
    layers = {key.split(".")[3] for key in state if key.startswith(f"{name}.encoder.layers.")}
    inner = len(state[f"{name}.encoder.layers.0.mlp.fc1.weight"])
    return {
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": len(layers),
        "num_attention_heads": max(1, width // head),
    }
