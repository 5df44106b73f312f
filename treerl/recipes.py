"""Each published algorithm as a value: the settings that make the one engine into it."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """A published algorithm: its source, and the dotted settings by which it differs from the defaults."""

    title: str
    source: str  # arXiv id of the paper, or where the setting was released
    settings: Mapping[str, object]


_CHAIN: Mapping[str, object] = {
    "tree.branch": 1,
    "tree.depth": "all",
    "tree.window": "fixed",
    "tree.start": 0,
}

RECIPES: Mapping[str, Recipe] = {
    "treegrpo": Recipe(
        "TreeGRPO: one tree of 3x3x3 leaves in a random window",
        "arXiv 2512.08153",
        {
            "tree.branch": 3,
            "tree.depth": 3,
            "tree.roots": 1,
            "tree.window": "geometric",
            "tree.ratio": 0.5,
            "advantage.weighting": "uniform",
            "advantage.baseline": "prompt",
            "objective.clip": 1e-4,
            "train.updates": 2,
        },
    ),
    "treegrpo-code": Recipe(
        "TreeGRPO as its authors released it: 16 leaves of a binary tree in a sliding window of 4",
        "the authors' released configuration of arXiv 2512.08153",
        {
            "tree.branch": 2,
            "tree.depth": 4,
            "tree.roots": 1,
            "tree.window": "shift",
            "tree.every": 50,
            "tree.stride": 1,
            "objective.clip": 1e-4,
            "train.updates": 2,
        },
    ),
    "flowgrpo": Recipe(
        "Flow-GRPO: 24 independent chains, every step but the last sampled and trained",
        "arXiv 2505.05470",
        {**_CHAIN, "tree.roots": 24, "objective.clip": 1e-4, "train.updates": 2},
    ),
    "dancegrpo": Recipe(
        "DanceGRPO: 12 chains from one noise, constant diffusion, 60 % of each chain's steps trained",
        "arXiv 2505.07818",
        {
            **_CHAIN,
            "tree.roots": 12,
            "tree.shared_noise": True,
            "tree.fraction": 0.6,
            "kernel.name": "dance-sde",
            "kernel.noise": 0.3,
            "objective.clip": 1e-4,
        },
    ),
    "mixgrpo": Recipe(
        "MixGRPO: 12 chains from one noise, sampled and trained in a sliding window of 4, the rest deterministic",
        "arXiv 2507.21802",
        {
            "tree.branch": 1,
            "tree.depth": 4,
            "tree.window": "shift",
            "tree.every": 25,
            "tree.stride": 1,
            "tree.roots": 12,
            "tree.shared_noise": True,
            "objective.clip": 1e-4,
        },
    ),
}
