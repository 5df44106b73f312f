"""The parameters of a backbone: what a run file says under `backbone`."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Le, MultipleOf
from pydantic import Field

Dtype = Literal["float32", "bfloat16", "float16"]
Device = Annotated[
    str,
    Field(
        pattern="^(auto|cpu|mps|cuda(:(0|[1-9][0-9]{0,2}))?)$",
        json_schema_extra={"expected": "auto, cpu, cuda, cuda:N or mps"},
    ),
]
Size = Annotated[int, Ge(8), Le(16384), MultipleOf(8)]


@dataclass(frozen=True, kw_only=True)
class BackboneSettings:
    """What every backbone has; a plug-in's own `Settings` extends it."""

    device: Device = "auto"  # auto is the GPU when there is one
    adapter: str | None = None  # the folder of a trained checkpoint to start from
    compile: Literal["auto", "blocks", "none"] = "auto"  # auto: the blocks, where there is a GPU


@dataclass(frozen=True, kw_only=True)
class PipelineSettings(BackboneSettings):
    """The parameters of a family of diffusers pipelines."""

    model: str = "tiny"  # a hub id, a local folder, tiny, random or miniature
    revision: str | None = None  # branch, tag or commit of a hub id
    variant: str | None = None  # of the weight files, such as fp16
    dtype: Dtype = "float32"
    height: Size | None = None  # pixels; null is the model's own
    width: Size | None = None
    frames: Annotated[int, Ge(1), Le(4096)] | None = None  # of a video
    max_sequence_length: Annotated[int, Ge(1), Le(65536)] | None = None
    negative_prompt: str | None = None  # of guidance; null is the family's own
    cfg_grad: bool = False  # gradient through the unconditional half of guidance too
    tiny_vae: str | None = None  # an AutoencoderTiny (folder or hub id) to decode with
    quantize: Literal["int8", "nf4"] | None = None  # of the blocks' frozen linear layers; LoRA only
    attention: str | None = None  # one of diffusers' attention backends; null is torch's own
    vae_slicing: bool = False  # decode one sample at a time
    vae_tiling: bool = False  # decode in tiles, and videos in runs of frames
    offload_text_encoders: bool = True  # they wait on the CPU

    def __post_init__(self) -> None:
        if (self.height is None) != (self.width is None):
            got = f"height {self.height or 'null'} and width {self.width or 'null'}"
            raise ValueError(f"expected both height and width or neither, got {got}")
