"""What an environment of a backbone is: the contract of the shelf `envs/`."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Literal

from treerl.backbone.contract import Backbone
from treerl.engine.env import Env
from treerl.engine.kernel import Kernel


@dataclass(frozen=True)
class EnvSettings:
    """How the reverse process is walked."""

    steps: int  # T, denoising steps
    guidance: float  # up to 1 is none
    latent_dtype: str  # in which latents are stored, scored and fed back
    latent_device: Literal["device", "cpu"]  # where they are kept
    rows: int  # samples in every forward and decode


class BackboneEnv(Env):
    """A backbone as a Markov decision process; its tasks are `Task`s."""

    @classmethod
    @abstractmethod
    def make(cls, backbone: Backbone, kernel: Kernel, settings: EnvSettings) -> "BackboneEnv":
        """The environment of that backbone, with no tasks yet."""
