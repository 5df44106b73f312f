"""treerl: tree reinforcement learning for diffusion and flow models.

Every public name is imported when it is first used, so that `import treerl` stays quick.
"""

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from treerl.gym.registration import announce

if TYPE_CHECKING:
    __version__: str

    from treerl.backbone.contract import Backbone as Backbone, Condition as Condition
    from treerl.backbone.pipeline import PipelineBackbone as PipelineBackbone
    from treerl.config.schema import Config as Config
    from treerl.engine.algorithm import Algorithm as Algorithm
    from treerl.engine.baseline import Baseline as Baseline, Reference as Reference
    from treerl.engine.branching import Branching as Branching
    from treerl.engine.coupling import Coupling as Coupling
    from treerl.engine.env import Env as Env
    from treerl.engine.kernel import (
        ODE as ODE,
        Coefficients as Coefficients,
        FlowSDE as FlowSDE,
        Kernel as Kernel,
    )
    from treerl.engine.normaliser import Normaliser as Normaliser, Scores as Scores
    from treerl.engine.objective import (
        Clipped as Clipped,
        EdgeObjective as EdgeObjective,
        LeafObjective as LeafObjective,
        Loss as Loss,
    )
    from treerl.engine.policy import Gaussian as Gaussian, Policy as Policy
    from treerl.engine.recipes import recipes as recipes
    from treerl.engine.schedule import Diffusion as Diffusion, Flow as Flow
    from treerl.engine.selection import Selection as Selection
    from treerl.engine.step import Step as Step
    from treerl.engine.task import Samples as Samples, Task as Task
    from treerl.engine.trainer import Trainer as Trainer
    from treerl.engine.tree import State as State, Tree as Tree
    from treerl.engine.tree_spec import TreeSpec as TreeSpec
    from treerl.engine.weighting import Siblings as Siblings, Weighting as Weighting
    from treerl.errors import (
        InputError as InputError,
        NumericsError as NumericsError,
        RewardError as RewardError,
        TreerlError as TreerlError,
    )
    from treerl.gym.env import DenoisingEnv as DenoisingEnv
    from treerl.gym.vector import VectorDenoisingEnv as VectorDenoisingEnv
    from treerl.registry import load as load
    from treerl.reward.contract import Reward as Reward
    from treerl.reward.rewards import Rewards as Rewards
    from treerl.run.assemble import assemble as assemble
    from treerl.run.session import Session as Session

_HOMES = {
    "treerl.backbone.contract": ("Backbone", "Condition"),
    "treerl.backbone.pipeline": ("PipelineBackbone",),
    "treerl.config.schema": ("Config",),
    "treerl.engine.algorithm": ("Algorithm",),
    "treerl.engine.baseline": ("Baseline", "Reference"),
    "treerl.engine.branching": ("Branching",),
    "treerl.engine.tree_spec": ("TreeSpec",),
    "treerl.engine.coupling": ("Coupling",),
    "treerl.engine.env": ("Env",),
    "treerl.engine.kernel": ("ODE", "Coefficients", "FlowSDE", "Kernel"),
    "treerl.engine.normaliser": ("Normaliser", "Scores"),
    "treerl.engine.objective": ("Clipped", "EdgeObjective", "LeafObjective", "Loss"),
    "treerl.engine.policy": ("Gaussian", "Policy"),
    "treerl.engine.schedule": ("Diffusion", "Flow"),
    "treerl.engine.selection": ("Selection",),
    "treerl.engine.task": ("Samples", "Task"),
    "treerl.engine.step": ("Step",),
    "treerl.engine.trainer": ("Trainer",),
    "treerl.engine.tree": ("State", "Tree"),
    "treerl.engine.weighting": ("Siblings", "Weighting"),
    "treerl.errors": ("InputError", "NumericsError", "RewardError", "TreerlError"),
    "treerl.gym.env": ("DenoisingEnv",),
    "treerl.gym.vector": ("VectorDenoisingEnv",),
    "treerl.engine.recipes": ("recipes",),
    "treerl.registry": ("load",),
    "treerl.reward.contract": ("Reward",),
    "treerl.reward.rewards": ("Rewards",),
    "treerl.run.assemble": ("assemble",),
    "treerl.run.session": ("Session",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}
__all__ = sorted(_HOME)

if not Path(__path__[0], "backbones").is_dir():
    # a checkout, as Python finds it first in its own folder: the shelves stand beside the package
    __path__.append(str(Path(__path__[0]).parent))
announce()


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name not in _HOME:
        raise AttributeError(f"module 'treerl' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("treerl")
    except PackageNotFoundError:  # a checkout that was never installed
        return "0+unknown"
