"""The configuration: every setting with its type, its bounds and its default."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self

from annotated_types import Ge, Gt, Le, MaxLen
from pydantic import BeforeValidator, Field, PlainSerializer, ValidationInfo, model_validator

from treerl.config import rules
from treerl.config.parallel import Parallel
from treerl.config.section import (
    EnvName,
    Executor,
    Expected,
    Plugin,
    Recipe,
    Section,
    Text,
    Weight,
    default,
    keyed,
    listed,
    refusal,
)
from treerl.config.training import ITERATIONS, Train

_MANY = 4096

Stride = Annotated[int, Ge(1), Le(1000)]  # steps of the schedule that one move takes
Strides = Annotated[
    tuple[Stride, ...],
    MaxLen(8),
    Field(strict=False),  # a list of YAML; the numbers in it stay strict
    PlainSerializer(list),
    Expected("a list of 0 to 8 whole numbers from 1 to 1000"),
]


class Backbone(Plugin, kind="backbones", path="backbone"):
    """The model that is trained; its parameters are those of the backbone's `Settings`."""

    name: Text = "sd35"


class Env(Section):
    """The reverse process that is walked."""

    name: EnvName = "denoising"
    steps: Annotated[int, Ge(2), Le(1000)] = 10
    guidance: Annotated[float, Ge(0), Le(100)] = 1.0
    latent_dtype: Literal["float32", "bfloat16", "float16"] = "float32"  # stored, scored, fed back
    latent_device: Literal["device", "cpu"] = "device"  # where they are kept


class Kernel(Plugin, kind="kernels", path="kernel"):
    """How one stochastic step is taken."""

    name: Text = "flow-sde"


class Branching(Plugin, kind="branchings", path="tree.branching"):
    """Where trees split, and which steps are sampled."""

    name: Text = "fixed"


class Coupling(Plugin, kind="couplings", path="tree.coupling"):
    """How the noise of siblings hangs together."""

    name: Text = "mirrored"


class Tree(Section):
    """The trees of a prompt."""

    branching: Branching = default(branching_factor=2, depth=4, start=1)
    trees_per_prompt: Annotated[int, Ge(1), Le(_MANY)] = 1
    shared_noise: bool = False  # the trees of a prompt start from one noise
    coupling: Coupling = default()
    tail_stride: Stride = 5  # steps at once after the last sampled one
    tail_order: Annotated[int, Ge(1), Le(2)] = 1  # of the solver there
    granularities: Strides = ()  # strides by which a leaf is finished and scored as well
    max_leaves: Annotated[int, Ge(1), Le(1_000_000)] = 4096  # per prompt
    previews: bool = False  # inner nodes are scored too, by the x̂₀ expected there


class Normaliser(Plugin, kind="normalisers", path="advantage.normaliser"):
    """How the scores of rewards become comparable."""

    name: Text = "standardised"


class Weighting(Plugin, kind="weightings", path="advantage.weighting"):
    """How siblings are weighed in their parent's value."""

    name: Text = "uniform"


class Baseline(Plugin, kind="baselines", path="advantage.baseline"):
    """What a value is compared with."""

    name: Text = "prompt"


class Advantage(Section):
    """How rewards of leaves become advantages of edges."""

    normaliser: Normaliser = default()
    weighting: Weighting = default()
    baseline: Baseline = default()
    normalise: bool = True  # divide by the scale that the baseline gives
    clip: Annotated[float, Gt(0)] = 5.0


class Objective(Plugin, kind="objectives", path="objective"):
    """The loss."""

    name: Text = "clipped"


class Watched(Plugin, kind="rewards", path="watch"):
    """A reward that is only watched: where it runs, and its own parameters."""

    name: Text = Field(exclude=True)  # its key
    executor: Executor | None = None  # null is scoring.executor
    timeout: Annotated[float, Gt(0), Le(86_400)] | None = None  # null is scoring.timeout

    @classmethod
    def longhand(cls, value: Any) -> Any:
        return value

    @property
    def place(self) -> str:
        return f"{self.path}.{self.name}"

    def spec(self) -> dict[str, Any]:
        """What is set, as `treerl.reward.build.build_rewards` takes it."""
        return self.model_dump(exclude_none=True) | self.params


class Reward(Watched, kind="rewards", path="rewards"):
    """A reward that is trained on."""

    weight: Weight = 1.0

    @classmethod
    def longhand(cls, value: Any) -> Any:
        return {"weight": value} if isinstance(value, int | float) else value


class Scoring(Section):
    """How rewards are run, and what happens when one fails."""

    on_bad_reward: Literal["stop", "retry", "drop_tree"] = "stop"
    retries: Annotated[int, Ge(0), Le(100)] = 2  # with retry, and before drop_tree
    executor: Executor = "process"  # or worker, or the address of a server
    timeout: Annotated[float, Gt(0), Le(86_400)] = (
        600.0  # seconds a call, in a worker or on a server
    )
    frames: Annotated[int, Ge(1), Le(_MANY)] = 4  # of a video that a reward of images looks at
    over_frames: Literal["mean", "min"] = "mean"


class Data(Section):
    """Where tasks come from; null is the built-in set."""

    train: Text | None = None
    heldout: Text | None = None  # null with a train file of one's own: a seeded tenth of that file
    builtin: Text = "shapes"  # the set that null files stand for
    prompt_field: Text = "prompt"  # key of a .jsonl, column of a .csv
    max_length: Annotated[int, Ge(1), Le(1_000_000)] = 2000  # characters of a prompt


class Evaluate(Section):
    """What is measured on held-out prompts."""

    max_prompts: Annotated[int, Ge(1), Le(100_000)] = 64
    samples_per_prompt: Annotated[int, Ge(1), Le(_MANY)] = 1
    every: Annotated[int, Ge(0), Le(ITERATIONS)] = 0  # iterations; 0 is only before and after
    steps: Annotated[int, Ge(2), Le(1000)] | None = None  # null is env.steps


Rewards = Annotated[
    dict[Text, Reward],
    BeforeValidator(keyed),
    Field(min_length=1),
    Expected("a mapping of at least one reward's name to its weight or settings"),
]
Watch = Annotated[
    dict[Text, Watched],
    BeforeValidator(listed),
    Expected("a list of different rewards that are only watched, or a mapping"),
]


class Config(Section):
    """A whole run; `Config()` trains the built-in tiny model."""

    seed: Annotated[int, Ge(0), Le(2**63 - 1)] = 0
    recipe: Recipe = "treerl"
    output: Text | None = None  # the run folder; null is the next free runs/<recipe>-NNNN
    backbone: Backbone = default()
    env: Env = default()
    kernel: Kernel = default()
    tree: Tree = default()
    advantage: Advantage = default()
    objective: Objective = default()
    rewards: Rewards = default(shapes={})
    watch: Watch = default()
    scoring: Scoring = default()
    data: Data = default()
    train: Train = default()
    evaluate: Evaluate = default()
    parallel: Parallel = default()

    @model_validator(mode="after")
    def _fits_together(self, info: ValidationInfo) -> Self:
        if not (info.context or {}).get("names_only"):
            conflicts = rules.conflicts(self)
            if conflicts:
                raise refusal(*conflicts)
        return self


def plugins(config: Config) -> Iterator[tuple[str, Plugin]]:
    """Every plug-in that the configuration names, with its dotted path."""
    for name, value in config:
        if isinstance(value, Plugin):
            yield name, value
        elif isinstance(value, Mapping):
            yield from ((f"{name}.{key}", plugin) for key, plugin in value.items())
        elif isinstance(value, Section):
            inside = ((f"{name}.{key}", inner) for key, inner in value)
            yield from ((path, inner) for path, inner in inside if isinstance(inner, Plugin))


def plugin_names(config: Config) -> list[str]:
    """The names of every plug-in that is used, the environment's too."""
    return [config.env.name, *(plugin.name for _, plugin in plugins(config))]
