"""The configuration: every setting with its type, its bounds and its default."""

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from treerl.config import rules
from treerl.config.parameters import Plugin, plugin
from treerl.config.rewards import Rewards, RewardSetting, Watch
from treerl.config.setting import Bool, Dtype, Int, Number, Section, Text, known_recipe

_MANY = 1_000_000  # more of anything is a slip of the finger


def _default(kind: str, name: str) -> Any:
    return Field(default=Plugin(kind, name))


class Env(Section):
    """The reverse process that is walked."""

    name: Text = "denoising"
    steps: Int = Field(default=10, ge=2, le=1000)
    guidance: Number = Field(default=1.0, ge=0, le=100)
    latent_dtype: Dtype = "float32"  # of the latents that are kept and scored
    latent_device: Literal["device", "cpu"] = "device"  # where they are kept


class Tree(Section):
    """The trees: where and how wide they branch, and how many there are."""

    branching: Annotated[Plugin, plugin("branchings")] = _default("branchings", "geometric")
    trees_per_prompt: Int = Field(default=1, ge=1, le=4096)
    shared_noise: Bool = False  # the trees of a prompt start from one noise
    previews: Bool = False  # inner nodes are scored too, by the x̂₀ that is expected there
    max_leaves: Int = Field(default=4096, ge=1, le=_MANY)  # per prompt


class Advantage(Section):
    """How rewards become advantages of edges."""

    normaliser: Annotated[Plugin, plugin("normalisers")] = _default("normalisers", "standardised")
    weighting: Annotated[Plugin, plugin("weightings")] = _default("weightings", "uniform")
    baseline: Annotated[Plugin, plugin("baselines")] = _default("baselines", "prompt")
    normalise: Bool = True  # divide by the scale that the baseline gives
    clip: Number = Field(default=5.0, gt=0)


class Scoring(Section):
    """How rewards are run, and what happens when one fails."""

    on_bad_reward: Literal["stop", "retry", "drop_tree"] = "stop"
    retries: Int = Field(default=2, ge=0, le=100)  # of a call that failed
    executor: Text = "process"  # process, worker, or the address of a server
    timeout: Number = Field(default=600.0, gt=0, le=86_400)  # seconds for a call
    frames: Int = Field(default=4, ge=1, le=4096)  # of a video that a reward of images looks at
    over_frames: Literal["mean", "min"] = "mean"


class Data(Section):
    """Where tasks come from; null is the built-in set."""

    train: Text | None = None
    heldout: Text | None = None  # null with a train file of one's own: a seeded tenth of that file
    builtin: Text = "shapes"  # the built-in set that null files stand for
    prompt_field: Text = "prompt"  # key of a .jsonl, column of a .csv
    max_length: Int = Field(default=2000, ge=1, le=_MANY)  # characters


class Train(Section):
    """The optimisation."""

    iterations: Int = Field(default=60, ge=0, le=_MANY)
    prompts_per_iteration: Int = Field(default=8, ge=1, le=100_000)
    micro_batch_size: Int = Field(default=24, ge=1, le=100_000)  # samples in every forward
    optimizer_steps: Int = Field(default=2, ge=1, le=10_000)  # per iteration
    ppo_epochs: Int = Field(default=1, ge=1, le=1000)  # passes over the edges of one rollout
    reduction: Literal["nodes", "edges", "depths"] = "nodes"
    selection: Annotated[Plugin, plugin("selections")] = _default("selections", "all")
    learning_rate: Number = Field(default=1e-4, ge=0)
    weight_decay: Number = Field(default=1e-4, ge=0)
    max_grad_norm: Number = Field(default=1.0, gt=0)
    trainable: Literal["lora", "full"] = "lora"
    lora_rank: Int = Field(default=16, ge=1, le=4096)
    lora_alpha: Number = Field(default=32.0, gt=0)
    gradient_checkpointing: Bool = False  # recompute activations in the backward pass
    threads: Int = Field(default=0, ge=0, le=1024)  # 0 is torch's own choice
    save_every: Int = Field(default=20, ge=0, le=_MANY)  # iterations; 0 is at the end alone
    guard: Literal["say", "stop"] = "say"  # when a run cannot be right


class Evaluate(Section):
    """What is measured on held-out prompts."""

    max_prompts: Int = Field(default=64, ge=1, le=100_000)
    samples_per_prompt: Int = Field(default=1, ge=1, le=4096)
    every: Int = Field(default=0, ge=0, le=_MANY)  # iterations; 0 is only before and after
    steps: Int | None = Field(default=None, ge=2, le=1000)  # null is env.steps


class Config(Section):
    """A whole run; `Config()` trains the built-in tiny model."""

    seed: Int = Field(default=0, ge=0, le=2**63 - 1)
    recipe: Annotated[Text, AfterValidator(known_recipe)] = "treegrpo"
    output: Text | None = None  # the run folder; null is the next free runs/<recipe>-NNNN
    backbone: Annotated[Plugin, plugin("backbones")] = _default("backbones", "sd35")
    env: Env = Env()
    kernel: Annotated[Plugin, plugin("kernels")] = _default("kernels", "flow-sde")
    tree: Tree = Tree()
    advantage: Advantage = Advantage()
    objective: Annotated[Plugin, plugin("objectives")] = _default("objectives", "clipped")
    rewards: Rewards = Field(
        default_factory=lambda: {"shapes": RewardSetting(Plugin("rewards", "shapes"))}
    )
    watch: Watch = Field(default_factory=dict)
    scoring: Scoring = Scoring()
    data: Data = Data()
    train: Train = Train()
    evaluate: Evaluate = Evaluate()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        conflicts = rules.conflicts(self)
        if conflicts:
            text = "; ".join(f"{', '.join(c.paths)}: {c.message}" for c in conflicts)
            raise PydanticCustomError("conflict", "{text}", {"text": text, "conflicts": conflicts})
        return self


def _sections() -> dict[str, type[Section]]:
    kinds: dict[str, Any] = {name: info.annotation for name, info in Config.model_fields.items()}
    return {
        name: kind
        for name, kind in kinds.items()
        if isinstance(kind, type) and issubclass(kind, Section)
    }


def _walk() -> dict[str, FieldInfo]:
    fields: dict[str, FieldInfo] = {}
    for name, info in Config.model_fields.items():
        if name in SECTIONS:
            for key, inner in SECTIONS[name].model_fields.items():
                fields[f"{name}.{key}"] = inner
        else:
            fields[name] = info
    return fields


SECTIONS = _sections()  # by name: train, tree, ...
_ALL = _walk()
MAPPINGS = frozenset(["rewards", "watch"])  # of names to rewards
_PLUGINS = {path: info.default for path, info in _ALL.items() if isinstance(info.default, Plugin)}
PLUGINS = {path: default.kind for path, default in _PLUGINS.items()}  # kinds by path
DEFAULTS = {path: default.name for path, default in _PLUGINS.items()}  # names by path
FIELDS = {path: info for path, info in _ALL.items() if path not in PLUGINS and path not in MAPPINGS}


def plugin_names(config: Config) -> list[str]:
    """Every plug-in that a configuration names."""
    values = list(dict(config).values())
    for name in SECTIONS:
        values += dict(getattr(config, name)).values()
    names = [value.name for value in values if isinstance(value, Plugin)]
    return list(dict.fromkeys([*names, *config.rewards, *config.watch, config.env.name]))
