"""An algorithm as one value: something to print, compare, change with `replace`, and train with."""

from dataclasses import dataclass, fields
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt

from treerl.engine.baseline import Baseline, Prompt
from treerl.engine.branching import Branching, Geometric
from treerl.engine.component import Component
from treerl.engine.coupling import Coupling, Independent
from treerl.engine.kernel import FlowSDE, Kernel
from treerl.engine.minibatch import Reduction
from treerl.engine.normaliser import Normaliser, Standardised
from treerl.engine.objective import Clipped, Objective
from treerl.engine.selection import All, Selection
from treerl.engine.tree_spec import Order, Stride, Tail
from treerl.engine.weighting import Uniform, Weighting

Decay = Literal["none", "linear"]
Sampler = Literal["policy", "ema"]


@dataclass(frozen=True)
class Algorithm:
    """How trees grow, how their scores become advantages, and what an update does with them.

        paper = treerl.recipes["treegrpo"]
        mine = dataclasses.replace(paper, baseline=LeaveSubtreeOut(), optimizer_steps=4)

    A flat group is a forest of roots that never split: `branching=Fixed()`, `trees_per_prompt=24`.
    """

    name: str = "custom"
    source: str = ""  # arXiv id of the paper, or where the setting was released
    kernel: Kernel = FlowSDE()  # the stochastic step; an environment of your own has its own
    branching: Branching = Geometric()
    trees_per_prompt: Annotated[int, Ge(1), Le(4096)] = 1
    shared_noise: bool = False  # the trees of a prompt start from one noise
    coupling: Coupling = Independent()  # how the noise of siblings hangs together
    tail_stride: Stride = 1  # steps at once after the last sampled one
    tail_order: Order = 1  # of the solver there
    granularities: tuple[Stride, ...] = ()  # strides by which a leaf is finished and scored as well
    previews: bool = False  # inner nodes are scored too, by the x̂₀ that the network expects there
    normaliser: Normaliser = Standardised()
    weighting: Weighting = Uniform()
    baseline: Baseline = Prompt()
    normalise: bool = True  # divide by the scale that the baseline gives
    advantage_clip: Annotated[float, Gt(0)] = 5.0
    selection: Selection = All()
    objective: Objective = Clipped()
    reduction: Reduction = "nodes"  # what an optimizer step's loss is a mean over
    optimizer_steps: Annotated[int, Ge(1), Le(10_000)] = 2  # per iteration and epoch
    ppo_epochs: Annotated[int, Ge(1), Le(1000)] = 1  # passes over the edges of one rollout
    decay: Decay = "none"  # of the learning rate, over the planned iterations
    ema: Annotated[float, Ge(0), Lt(1)] = 0.0  # decay of the weights' moving average; 0 is none
    rollout: Sampler = "policy"  # whose weights grow the trees

    @property
    def trees(self) -> Branching:
        """The branching with the tails as they are walked."""
        return self.branching.walked(Tail(self.tail_stride, self.tail_order, self.granularities))

    def components(self) -> dict[str, Component]:
        """The parts that may learn and be saved, by field name."""
        parts = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: part for name, part in parts.items() if isinstance(part, Component)}
