"""The files of a bench folder as pydantic models: what is written is what may be read."""

from typing import Literal

from pydantic import Field

from treerl.run.files import File, Number, Numbers, Summary, Text


class Point(File):
    """What a cell had spent at a mark, and what its held-out samples were worth there."""

    mark: int = Field(ge=0)  # 0 is before training
    iteration: int = Field(ge=0)
    spent: Numbers  # as the plan counts: sampling_forwards, update_forwards, reward_calls, ...
    seconds: Number  # of training
    heldout: Summary

    def figures(self) -> dict[str, float | None]:
        """Every held-out figure: reward, `measures.right`, `watched.clip`, `quality.diversity`."""
        named: dict[str, float | None] = {"reward": self.heldout.reward}
        for kind in ("measures", "watched", "quality"):
            table: Numbers = getattr(self.heldout, kind)
            named |= {f"{kind}.{name}": value for name, value in table.items()}
        return named


class Row(File):
    """A line of cells.jsonl: a cell that was trained to its end, or failed."""

    key: Text  # tells the cell's configuration and budget from every other
    phase: Literal["sweep", "compare"]
    recipe: Text
    settings: list[Text]  # of the variant
    tried: list[Text]  # of the sweep
    seed: int
    status: Literal["done", "failed"]
    error: Text | None = None
    code: int = 0  # as treerl would have ended with
    points: list[Point]
    versions: dict[Text, Text]


class Declaration(File):
    """bench.json: what was compared, in words; the cells themselves say what they are of."""

    format: Literal[1] = 1
    started: Text
    command: list[Text]
    model: Text
    rewards: list[Text]
    recipes: list[Text]
    budget: Text
    marks: int = Field(ge=1)
    seeds: list[int]
    sweep: dict[Text, list[list[Text]]]  # what is tried, by variant
    tuning_seeds: list[int]
    tune_by: Literal["area", "end"] = "area"
    score: Text | None = None  # null is right, or else reward
    levels: list[float] | None = None  # null are those of right
    device: Text
    versions: dict[Text, Text]
