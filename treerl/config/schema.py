"""The configuration: every setting with its type, its bounds and its default."""

from dataclasses import fields
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from treerl.backbone.settings import BackboneSettings
from treerl.config import rules
from treerl.config.setting import (
    Bool,
    Device,
    Dtype,
    Expected,
    Int,
    Number,
    Options,
    Text,
    Weight,
    check_name,
    plugin,
)

_MANY = 10**9  # more of anything is a slip of the finger, and would overflow somewhere later


class Section(BaseModel):
    """Settings that belong together; unknown keys are refused and nothing changes after the check."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class Backbone(Section):
    """The model that is trained."""

    name: Annotated[Text, plugin("backbones")] = "sd35"
    model: Text = "tiny"  # a hub id, a local folder, tiny, random or miniature
    revision: Text | None = None
    adapter: Text | None = None  # the folder of a trained LoRA to start from
    dtype: Dtype = "float32"
    device: Device = "auto"
    height: Int | None = Field(default=None, ge=8, le=16384, multiple_of=8)
    width: Int | None = Field(default=None, ge=8, le=16384, multiple_of=8)
    frames: Int | None = Field(default=None, ge=1, le=4096)  # of a video
    max_sequence_length: Int | None = Field(default=None, ge=1, le=65536)
    negative_prompt: Text | None = (
        None  # the negative prompt of guidance; null is the pipeline's own
    )
    cfg_grad: Bool = False  # gradient through the unconditional half of guidance too
    variant: Text | None = None  # of the weight files, such as fp16
    tiny_vae: Text | None = None  # an AutoencoderTiny (folder or hub id) to decode with
    vae_slicing: Bool = False  # decode one sample at a time
    vae_tiling: Bool = False  # decode in tiles, and videos in runs of frames
    offload_text_encoders: Bool = True  # they wait on the CPU

    def settings(self, family: type[BackboneSettings]) -> Any:
        """What a backbone of that `Settings` is made of."""
        names = {field.name for field in fields(family)}
        return family(
            **{name: getattr(self, name) for name in names if name in type(self).model_fields}
        )


class Env(Section):
    """The reverse process that is walked."""

    name: Annotated[Text, plugin("envs")] = "denoising"
    steps: Int = Field(default=10, ge=2, le=1000)
    guidance: Number = Field(default=1.0, ge=0, le=100)
    storage: Dtype = "float32"  # of the latents that are kept and scored
    store: Literal["device", "cpu"] = "device"  # where they are kept


class Kernel(Section):
    """How one stochastic step is taken."""

    name: Annotated[Text, plugin("kernels")] = "flow-sde"
    noise: Number = Field(default=0.7, gt=0, le=10)
    options: Options = Field(default_factory=dict)


class Tree(Section):
    """The shape of the trees: where and how wide they branch, and how much of them is trained."""

    branch: Int = Field(default=3, ge=1, le=64)
    depth: Annotated[Int, Field(ge=1)] | Literal["all"] = 3  # "all" is every step but the last
    roots: Int = Field(default=1, ge=1, le=4096)
    window: Annotated[Text, plugin("branchings")] = "geometric"
    start: Int | None = Field(default=None, ge=0, le=_MANY)  # of the fixed window only
    ratio: Number = Field(default=0.5, gt=0, lt=1)
    every: Int = Field(default=50, ge=1, le=_MANY)  # iterations between moves of the shift window
    stride: Int = Field(default=1, ge=1, le=_MANY)
    fraction: Number = Field(
        default=1.0, gt=0, le=1
    )  # share of the stochastic steps that is trained
    shared_noise: Bool = False  # the roots of a prompt start from one noise
    max_leaves: Int = Field(default=4096, ge=1, le=_MANY)  # per prompt
    options: Options = Field(default_factory=dict)


class Advantage(Section):
    """How rewards of leaves become advantages of edges."""

    weighting: Annotated[Text, plugin("weightings")] = "uniform"
    temperature: Number = Field(default=1.0, gt=0)
    baseline: Annotated[Text, plugin("baselines")] = "prompt"
    normalise: Bool = True
    clip: Number = Field(default=5.0, gt=0)
    tolerance: Number = Field(default=1e-6, ge=0)
    options: Options = Field(default_factory=dict)


class Objective(Section):
    """The loss."""

    name: Annotated[Text, plugin("objectives")] = "clipped"
    clip: Number = Field(default=1e-4, gt=0, lt=1)
    reduce: Literal["nodes", "edges", "depths"] = "nodes"
    kl: Number = Field(default=0.0, ge=0)
    options: Options = Field(default_factory=dict)


class Scoring(Section):
    """How rewards are run and combined, and what happens when one fails."""

    combine: Literal["standardised", "raw"] = (
        "standardised"  # each in its prompt, then the weighted sum; or as they are
    )
    on_bad_reward: Literal["stop", "retry", "drop_tree"] = "stop"
    retries: Int = Field(
        default=2, ge=0, le=100
    )  # of a call that failed, with retry and before drop_tree
    where: Text = "process"  # process, worker, or the address of a server; NAME.where in options is one reward's own
    deadline: Number = Field(
        default=600.0, gt=0, le=86_400
    )  # seconds for a call in a worker or on a server
    frames: Int = Field(default=4, ge=1, le=4096)  # of a video that a reward of pictures looks at
    over_frames: Literal["mean", "min"] = "mean"
    options: Options = Field(
        default_factory=dict
    )  # NAME.field: what a reward's own fields are set to


class Prompts(Section):
    """Where prompts come from; null is the built-in set."""

    train: Text | None = None
    builtin: Text = "shapes"  # the built-in set that null files stand for
    heldout: Text | None = None  # null with a train file of one's own: a seeded tenth of that file
    field: Text = "prompt"  # key of a .jsonl, column of a .csv
    max_length: Int = Field(default=2000, ge=1, le=1_000_000)  # characters


class Train(Section):
    """The optimisation."""

    iterations: Int = Field(default=60, ge=0, le=_MANY)
    prompts: Int = Field(default=8, ge=1, le=_MANY)  # per iteration
    rows: Int = Field(default=24, ge=1, le=_MANY)  # per forward
    updates: Int = Field(default=2, ge=1, le=_MANY)  # optimizer steps per iteration
    learning_rate: Number = Field(default=1e-4, ge=0)
    weight_decay: Number = Field(default=1e-4, ge=0)
    max_grad_norm: Number = Field(default=1.0, gt=0)
    weights: Literal["lora", "full"] = "lora"
    rank: Int = Field(default=16, ge=1, le=_MANY)
    alpha: Number = Field(default=32.0, gt=0)
    checkpointing: Bool = (
        False  # recompute activations in the backward pass instead of keeping them
    )
    threads: Int = Field(default=0, ge=0, le=1024)  # 0 is torch's own choice


class Evaluate(Section):
    """What is measured on held-out prompts."""

    prompts: Int = Field(default=64, ge=1, le=_MANY)
    samples: Int = Field(default=1, ge=1, le=_MANY)  # pictures per prompt
    every: Int = Field(default=0, ge=0, le=_MANY)  # iterations; 0 is only before and after
    steps: Int | None = Field(default=None, ge=2, le=1000)  # null is env.steps


def _known_recipe(name: str) -> str:
    from treerl.recipes import RECIPES  # recipes may themselves import the schema

    return check_name("recipes", name, RECIPES, allow_plugins=False)


def _some(rewards: dict[str, float]) -> dict[str, float]:
    if not rewards:
        raise ValueError("no reward")  # worded by `describe`
    return rewards


Rewards = Annotated[
    dict[Annotated[Text, plugin("rewards")], Weight],
    AfterValidator(_some),
    Expected("a mapping of at least one reward's name to its weight"),
]


Watch = Annotated[
    list[Annotated[Text, plugin("rewards")]],
    Expected("a list of names of rewards that are only watched"),
]


class Config(Section):
    """A whole run; `Config()` trains the built-in tiny model."""

    seed: Int = Field(default=0, ge=0, le=2**63 - 1)
    recipe: Annotated[Text, AfterValidator(_known_recipe)] = "treegrpo"
    output: Text | None = None  # the run folder; null is the next free runs/<recipe>-NNNN
    backbone: Backbone = Backbone()
    env: Env = Env()
    kernel: Kernel = Kernel()
    tree: Tree = Tree()
    advantage: Advantage = Advantage()
    objective: Objective = Objective()
    rewards: Rewards = Field(default_factory=lambda: {"shapes": 1.0})
    watch: Watch = Field(default_factory=list)
    scoring: Scoring = Scoring()
    prompts: Prompts = Prompts()
    train: Train = Train()
    evaluate: Evaluate = Evaluate()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        conflicts = rules.conflicts(self)
        if conflicts:
            text = "; ".join(
                f"{', '.join(conflict.paths)}: {conflict.message}" for conflict in conflicts
            )
            raise PydanticCustomError("conflict", "{text}", {"text": text, "conflicts": conflicts})
        return self


def _walk() -> dict[str, FieldInfo]:
    found: dict[str, FieldInfo] = {}
    for name, field in Config.model_fields.items():
        if name in SECTIONS:
            found |= {f"{name}.{key}": inner for key, inner in SECTIONS[name].model_fields.items()}
        else:
            found[name] = field
    return found


def _sections() -> dict[str, type[Section]]:
    kinds: dict[str, Any] = {name: field.annotation for name, field in Config.model_fields.items()}
    return {
        name: kind
        for name, kind in kinds.items()
        if isinstance(kind, type) and issubclass(kind, Section)
    }


SECTIONS = _sections()  # by name: train, tree, ...
FIELDS = _walk()  # by dotted path: seed, tree.branch, ...
MAPPINGS = frozenset(
    ["rewards", *(f"{name}.options" for name in SECTIONS if f"{name}.options" in FIELDS)]
)
