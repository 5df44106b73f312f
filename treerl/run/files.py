"""The files of a run folder as pydantic models: what a run writes is what a page may read."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationError,
    model_validator,
)
from torch import Tensor

from treerl.errors import StorageError, printable

_HUGE = 1e300
_Model = TypeVar("_Model", bound=BaseModel)


def plain(value: Any) -> Any:
    """The same in what JSON has: null for a number that is not finite, no lone surrogates."""
    if isinstance(value, Tensor):
        return plain(value.tolist())
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, Mapping):
        return {plain(str(name)): plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return value


def _number(value: Any) -> int | float | None:
    """A number that a float can hold; None stands for one that is not finite."""
    value = plain(value)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"expected a number, got {type(value).__name__}")
    if abs(value) > _HUGE:
        raise ValueError(f"expected a number of at most {_HUGE:g}")
    return value


Text = Annotated[str, BeforeValidator(plain), Field(max_length=100_000)]
Number = Annotated[int | float | None, PlainValidator(_number)]
Numbers = dict[Text, Number]
Status = Literal["running", "done", "interrupted", "failed"]
# a plain name of this folder: no slash, no dot in front
ImageName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,60}\.png$")]


class File(BaseModel):
    """What every file of a run keeps to: no other fields, no other types."""

    model_config = ConfigDict(strict=True, extra="forbid", validate_assignment=True)


class Summary(File):
    """The means of an evaluation."""

    reward: Number
    measures: Numbers = {}
    watched: Numbers = {}
    quality: Numbers = {}
    samples: int = Field(ge=0)


def _check_summary(value: dict[str, Any]) -> dict[str, Any]:
    return Summary.model_validate(value).model_dump()


class PluginFile(File):
    """A researcher's own file that a run used."""

    name: Text
    path: Text
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    kept: Text = Field(alias="copy")  # where the run folder keeps it


class Resumed(File):
    """That a run was taken up again."""

    time: Text
    iteration: int = Field(ge=0)
    changed: dict[Text, Text] = {}  # settings by dotted path, "old -> new"


class Process(File):
    """Who works on a run."""

    host: Text
    pid: int


class Manifest(File):
    """Where a run comes from and how it stands."""

    format: Literal[3] = 3
    run: Text  # tells this run from every other
    treerl: Text
    command: list[Text]
    started: Text
    resumed: list[Resumed] = []
    ended: Text | None = None
    process: Process | None = None  # that runs it
    status: Status = "running"
    error: Text | None = None
    seed: int
    versions: dict[Text, Text]
    device: Text
    threads: int
    plan: Numbers
    spent: Numbers = {}
    seconds: Numbers = {}
    alarms: list[Text] = []
    evaluation: dict[str, Annotated[dict[str, Any], AfterValidator(_check_summary)] | None] = {
        "before": None,
        "after": None,
    }
    plugins: list[PluginFile] = []
    trainable_parameters: int = 0
    replay_noise: Number = None  # how far ratios differ from 1 by rounding alone
    prompts: dict[Text, int] = {}

    def summary(self, when: Literal["before", "after"]) -> Summary | None:
        """The means of the held-out evaluation before or after training."""
        means = self.evaluation.get(when)
        return None if means is None else Summary.model_validate(means)


class MetricsRow(File):
    """An iteration; further numbers of one's own are kept."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Number | Numbers]

    iteration: int = Field(ge=1, le=10**9)
    reward: Number = None
    reward_std: Number = None
    rewards: Numbers = {}
    reward_stds: Numbers = {}
    reward_shares: Numbers = {}
    sampling_forwards: Number = None
    update_forwards: Number = None
    reference_forwards: Number = None
    rows: Number = None
    leaves: Number = None
    edges: Number = None
    window_start: Number = None
    advantage_abs: Number = None
    zero_std_prompts: Number = None
    effective_leaves: Number = None
    sibling_std: Number = None
    variance_by_step: Numbers = {}
    zero_advantages: Number = None
    clipped_advantages: Number = None
    dropped_trees: Number = None
    loss: Number = None
    clip_fraction: Number = None
    ratio_deviation: Number = None
    grad_norm: Number = None
    seconds: Number = None
    heldout: Summary | None = None
    alarms: list[Text] = []


class Shot(File):
    """A held-out sample."""

    image: ImageName | None
    score: Number
    right: Number = None


class SampleRow(File):
    """A held-out task, drawn from the same noise before and after training."""

    prompt: Text
    before: Shot
    after: Shot | None = None


class SamplesFile(File):
    """samples/samples.json."""

    samples: list[SampleRow]


class TreeNode(File):
    """A node of a tree; the edge is the one that leads to it."""

    id: int = Field(ge=0)
    parent: int = Field(ge=-1)
    step: int = Field(ge=0)
    stochastic: bool
    trained: bool
    advantage: Number
    value: Number
    score: Number
    image: ImageName | None


class TreeFile(File):
    """The trees of an iteration's first task, parents before children."""

    iteration: int = Field(ge=1, le=10**9)
    prompt: Text
    steps: int = Field(ge=1, le=10_000)
    nodes: list[TreeNode] = Field(max_length=200_000)

    ROOT: ClassVar[int] = -1

    @model_validator(mode="after")
    def _is_a_forest(self) -> "TreeFile":
        for number, node in enumerate(self.nodes):
            if node.id != number:
                raise ValueError(f"node {number} has id {node.id}")
            if node.parent >= number:
                raise ValueError(f"node {number} comes before its parent {node.parent}")
            fits = node.step == 0
            if node.parent != self.ROOT:
                fits = self.nodes[node.parent].step < node.step <= self.steps
            if not fits:
                raise ValueError(f"node {number} is not after its parent: {node.step} steps")
        return self


def checked(model: type[_Model], content: Any, where: str) -> _Model:
    """The content, JSON or plain values, as a model."""
    try:
        if isinstance(content, bytes):
            return model.model_validate_json(content)
        return model.model_validate(content)
    except ValidationError as error:
        problem = error.errors()[0]
        message = problem["msg"].removeprefix("Value error, ")
        field = ".".join(str(part) for part in problem["loc"] if "[" not in str(part))
        text = f"{where}: {field}: {message}" if field else f"{where}: {message}"
        raise StorageError(printable(text).replace("\n", " ")) from error
