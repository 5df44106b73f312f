"""Each published algorithm as a value of the one engine."""

from collections.abc import Mapping

from treerl.engine.algorithm import Algorithm
from treerl.engine.branching import Fixed, Geometric, Shift
from treerl.engine.kernel import DanceSDE
from treerl.engine.objective import Clipped
from treerl.engine.selection import Share

_ALL_STEPS = Fixed(branching_factor=1, depth="all", start=0)

# TreeGRPO: one tree of 3x3x3 leaves in a random window, early ones more likely.
_TREEGRPO = Algorithm(
    name="treegrpo",
    source="arXiv 2512.08153",
    branching=Geometric(branching_factor=3, depth=3, ratio=0.5),
    objective=Clipped(clip_range=1e-4),
    optimizer_steps=2,
)

# TreeGRPO as its authors released it: 16 leaves of a binary tree in a sliding window of 4.
_TREEGRPO_CODE = Algorithm(
    name="treegrpo-code",
    source="the released configuration of arXiv 2512.08153",
    branching=Shift(branching_factor=2, depth=4, interval=50, stride=1),
    objective=Clipped(clip_range=1e-4),
    optimizer_steps=2,
)

# Flow-GRPO: 24 independent chains, every step but the last sampled and trained.
_FLOWGRPO = Algorithm(
    name="flowgrpo",
    source="arXiv 2505.05470",
    branching=_ALL_STEPS,
    trees_per_prompt=24,
    objective=Clipped(clip_range=1e-4),
    optimizer_steps=2,
)

# DanceGRPO: 12 chains from one noise, constant diffusion, 60 % of each chain's steps trained.
_DANCEGRPO = Algorithm(
    name="dancegrpo",
    source="arXiv 2505.07818",
    kernel=DanceSDE(noise_level=0.3),
    branching=_ALL_STEPS,
    trees_per_prompt=12,
    shared_noise=True,
    selection=Share(share=0.6),
    objective=Clipped(clip_range=1e-4),
)

# MixGRPO: 12 chains from one noise, sampled and trained in a sliding window of 4, the rest ODE.
_MIXGRPO = Algorithm(
    name="mixgrpo",
    source="arXiv 2507.21802",
    branching=Shift(branching_factor=1, depth=4, interval=25, stride=1),
    trees_per_prompt=12,
    shared_noise=True,
    objective=Clipped(clip_range=1e-4),
)

_VALUES = (_TREEGRPO, _TREEGRPO_CODE, _FLOWGRPO, _DANCEGRPO, _MIXGRPO)

recipes: Mapping[str, Algorithm] = {algorithm.name: algorithm for algorithm in _VALUES}
