"""Each published algorithm as a value of the one engine."""

from collections.abc import Mapping
from dataclasses import replace

from treerl.engine.algorithm import Algorithm
from treerl.engine.baseline import Depth, Siblings, StepGain
from treerl.engine.branching import Fixed, Geometric, Shift
from treerl.engine.branchings.chain import Chain
from treerl.engine.branchings.splits import Splits
from treerl.engine.branchings.star import Star
from treerl.engine.coupling import Correlated, Mirrored
from treerl.engine.kernel import DanceSDE, FlowSDE
from treerl.engine.normaliser import GlobalStd
from treerl.engine.objective import Clipped
from treerl.engine.objectives.awm import AWM
from treerl.engine.objectives.dppo import DPPO
from treerl.engine.objectives.flash import Flash
from treerl.engine.objectives.guard import Guard
from treerl.engine.objectives.nft import NFT
from treerl.engine.objectives.noise_aware import NoiseAware
from treerl.engine.selection import Share
from treerl.engine.selections.contrast import Contrast
from treerl.engine.selections.depths import Depths
from treerl.engine.sources import SOURCES

_ALL_STEPS = Fixed(branching_factor=1, depth="all", start=0)

# TreeGRPO: one tree of 3x3x3 leaves in a random window, early ones more likely.
_TREEGRPO = Algorithm(
    name="treegrpo",
    source=SOURCES["treegrpo"],
    branching=Geometric(branching_factor=3, depth=3, ratio=0.5),
    objective=Clipped(clip_range=1e-4),
    optimizer_steps=2,
)

# TreeGRPO as its authors released it: 16 leaves of a binary tree in a sliding window of 4.
_TREEGRPO_CODE = Algorithm(
    name="treegrpo-code",
    source=SOURCES["treegrpo-code"],
    branching=Shift(branching_factor=2, depth=4, interval=50, stride=1),
    objective=Clipped(clip_range=1e-4),
    optimizer_steps=2,
)

# Ours: mirrored siblings in an early window, a tail of one or few moves, updates on the half of the
# nodes whose siblings differ most, a rate that decays.
_TREERL = Algorithm(
    name="treerl",
    source=SOURCES["treerl"],
    branching=Fixed(branching_factor=2, depth=4, start=1),
    coupling=Mirrored(),
    tail_stride=5,
    selection=Contrast(share=0.5),
    objective=Clipped(clip_range=1e-4),
    optimizer_steps=4,
    decay="linear",
)

# BranchGRPO: a binary tree of 16 leaves, every step sampled, siblings that share a little of their
# noise, compared depth by depth.
_BRANCHGRPO = Algorithm(
    name="branchgrpo",
    source=SOURCES["branchgrpo"],
    kernel=DanceSDE(noise_level=0.3),
    branching=Splits(branching_factor=2, count=4, spacing=0.15),
    coupling=Correlated(spread=4.0),
    baseline=Depth(),
    objective=Clipped(clip_range=1e-3),
    reduction="edges",
    optimizer_steps=2,
)

# The same with four steps below the last split left out of the backward pass (its DepPru).
_BRANCHGRPO_PRUNED = replace(
    _BRANCHGRPO,
    name="branchgrpo-pruned",
    source=SOURCES["branchgrpo-pruned"],
    selection=Depths(size=4, interval=30),
)

# DDPO: independent chains, every step but the last sampled and trained, compared by prompt.
_DDPO = Algorithm(
    name="ddpo",
    source=SOURCES["ddpo"],
    branching=_ALL_STEPS,
    trees_per_prompt=16,
    objective=Clipped(clip_range=1e-4),
    optimizer_steps=2,
)

# Flow-GRPO: 24 independent chains, the iteration's std for all prompts, a KL to the start, and an
# average of the weights that is evaluated and kept.
_FLOWGRPO = Algorithm(
    name="flowgrpo",
    source=SOURCES["flowgrpo"],
    branching=_ALL_STEPS,
    trees_per_prompt=24,
    normaliser=GlobalStd(),
    objective=Clipped(clip_range=1e-4, kl=0.04),
    optimizer_steps=2,
    ema=0.9,
)

# DanceGRPO: 12 chains from one noise, constant diffusion, 60 % of each chain's steps trained.
_DANCEGRPO = Algorithm(
    name="dancegrpo",
    source=SOURCES["dancegrpo"],
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
    source=SOURCES["mixgrpo"],
    branching=Shift(branching_factor=1, depth=4, interval=25, stride=1),
    trees_per_prompt=12,
    shared_noise=True,
    objective=Clipped(clip_range=1e-4),
)

# Flow-GRPO-Fast: one trunk to a random step, 24 branches, two sampled steps each.
_FLOWGRPO_FAST = Algorithm(
    name="flowgrpo-fast",
    source=SOURCES["flowgrpo-fast"],
    kernel=FlowSDE(noise_level=0.8),
    branching=Star(branching_factor=24, depth=2),
    normaliser=GlobalStd(),
    objective=Clipped(clip_range=1e-5),
    reduction="edges",
    optimizer_steps=2,
)

# TempFlow-GRPO: 4 seeds x 6 branches of one step, each seed's compared with each other.
_TEMPFLOW = Algorithm(
    name="tempflow",
    source=SOURCES["tempflow"],
    branching=Star(branching_factor=6, depth=1),
    trees_per_prompt=4,
    baseline=Siblings(),
    objective=NoiseAware(clip_range=1e-4, kl=0.004),
    reduction="edges",
    optimizer_steps=2,
)

# G²RPO: one step of the first half, 12 branches of it, each finished by three strides.
_G2RPO = Algorithm(
    name="g2rpo",
    source=SOURCES["g2rpo"],
    branching=Star(branching_factor=12, depth=1, part=0.5),
    granularities=(2, 3),
    objective=Clipped(clip_range=1e-4),
    reduction="edges",
    optimizer_steps=1,
)

# Flash-GRPO: chains that sample and train one step of the first half, the same for all.
_FLASH_GRPO = Algorithm(
    name="flash-grpo",
    source=SOURCES["flash-grpo"],
    branching=Star(branching_factor=1, depth=1, part=0.5),
    trees_per_prompt=24,
    objective=Flash(clip_range=1e-3),
    reduction="edges",
    optimizer_steps=2,
)

# GRPO-Guard: Flow-GRPO with a centred ratio and steps of equal weight, and no KL.
_GRPO_GUARD = Algorithm(
    name="grpo-guard",
    source=SOURCES["grpo-guard"],
    branching=_ALL_STEPS,
    trees_per_prompt=24,
    normaliser=GlobalStd(),
    objective=Guard(clip_range=2e-6),
    optimizer_steps=2,
)

# Flow-DPPO: Flow-GRPO with a mask by the exact KL of a step in place of the clip.
_FLOW_DPPO = Algorithm(
    name="flow-dppo",
    source=SOURCES["flow-dppo"],
    branching=_ALL_STEPS,
    trees_per_prompt=24,
    normaliser=GlobalStd(),
    objective=DPPO(radius=1e-5),
    optimizer_steps=2,
)

# Stepwise-Flow-GRPO: Flow-GRPO whose steps are credited with what they add to the preview's reward.
_STEPWISE = Algorithm(
    name="stepwise",
    source=SOURCES["stepwise"],
    branching=_ALL_STEPS,
    trees_per_prompt=24,
    previews=True,
    baseline=StepGain(),
    objective=Clipped(clip_range=1e-4),
    optimizer_steps=2,
)

# DiffusionNFT: plain samples of an old policy that follows slowly, noised again, told apart by two
# implied policies.
_NFT = Algorithm(
    name="nft",
    source=SOURCES["nft"],
    branching=Chain(),
    trees_per_prompt=24,
    normaliser=GlobalStd(),
    objective=NFT(beta=1.0),
    optimizer_steps=2,
    ema=0.5,
    rollout="ema",
)

# Advantage-weighted matching: plain samples, the loss of pre-training times the advantage.
_AWM = Algorithm(
    name="awm",
    source=SOURCES["awm"],
    branching=Chain(),
    trees_per_prompt=24,
    normaliser=GlobalStd(),
    objective=AWM(kl=0.1),
    optimizer_steps=2,
)

_TREES = (_TREERL, _TREEGRPO, _TREEGRPO_CODE, _BRANCHGRPO, _BRANCHGRPO_PRUNED)
_CHAINS = (_DDPO, _FLOWGRPO, _DANCEGRPO, _MIXGRPO, _GRPO_GUARD, _FLOW_DPPO, _STEPWISE)
_STARS = (_FLOWGRPO_FAST, _TEMPFLOW, _G2RPO, _FLASH_GRPO)
_LEAVES = (_NFT, _AWM)

recipes: Mapping[str, Algorithm] = {
    algorithm.name: algorithm for algorithm in (*_TREES, *_CHAINS, *_STARS, *_LEAVES)
}
