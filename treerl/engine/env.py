"""What an environment is: a denoising Markov decision process in Gymnasium's functional vocabulary."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from treerl.backbone.contract import Backbone
from treerl.engine.kernel import Gaussian
from treerl.engine.task import Samples, Task
from treerl.engine.tree import State
from treerl.reward.rewards import Rewards

if TYPE_CHECKING:
    from treerl.config.schema import Config


class Env(ABC):
    """State = (prompt, step, latent), action = the next latent, and a reward at the end alone.

    Stateless: nothing is hidden between two calls, so any state can be branched, stored and taken up again.
    """

    @property
    @abstractmethod
    def steps(self) -> int:
        """T, the number of denoising steps."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """The shape of one latent."""

    @property
    @abstractmethod
    def storage(self) -> torch.dtype:
        """The dtype that latents are stored, scored and fed back in."""

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where the policy runs."""

    @property
    def stored_on(self) -> torch.device:
        """Where the latents of a tree are kept."""
        return self.device

    @abstractmethod
    def initial(self, prompt: Tensor, noise: Tensor) -> State:
        """The states at step 0 for prompt rows `[M]` and standard normal draws `[M, *shape]`."""

    @abstractmethod
    def policy(self, state: State, stochastic: bool) -> Gaussian:
        """The distribution of the next latent: one network evaluation a row; std 0 when not stochastic."""

    @abstractmethod
    def reward(self, state: State) -> Tensor:
        """Scores `[M, K]` of finished states, float64 on the CPU, one column for each of K rewards."""

    def transition(self, state: State, action: Tensor) -> State:
        """The state after taking `action` `[M, ...]`."""
        return State(action, state.step + 1, state.prompt)

    def terminal(self, state: State) -> Tensor:
        """Whether each state is finished `[M]`."""
        return state.step >= self.steps


class PromptedEnv(Env):
    """An environment made of a backbone and rewards, which takes its prompts as texts; what `envs` plug-ins are."""

    rewards: Rewards
    prompts: tuple[str, ...]

    @classmethod
    @abstractmethod
    def make(cls, backbone: Backbone, rewards: Rewards, config: "Config") -> "PromptedEnv":
        """The environment that the configuration describes."""

    @abstractmethod
    def ask(self, prompts: Sequence[str]) -> "PromptedEnv":
        """The same environment over these prompts; row r of a state's `prompt` means `prompts[r]`."""

    @abstractmethod
    def walk(self, steps: int) -> "PromptedEnv":
        """The same environment with another number of denoising steps."""

    @abstractmethod
    def decode(self, state: State) -> Tensor:
        """The samples of finished states, on the CPU: pictures `[M, 3, H, W]`, videos `[M, F, 3, H, W]`, in [0, 1]."""

    @abstractmethod
    def score(self, images: Tensor, prompt: Tensor) -> Tensor:
        """Scores `[M, K]` of decoded samples for the prompts in rows `prompt` `[M]`, float64 on the CPU."""

    def samples(self, images: Tensor, prompt: Tensor) -> Samples:
        """What rewards are shown: decoded samples, and the tasks of their rows `prompt` `[M]`."""
        tasks = tuple(Task(self.prompts[row]) for row in prompt.tolist())
        return Samples(images, tasks, prompt.to("cpu", torch.int64))

    def reward(self, state: State) -> Tensor:
        return self.score(self.decode(state), state.prompt)

    @abstractmethod
    def refuse_unsound(self, stochastic: tuple[bool, ...]) -> None:
        """`NumericsError` when one of the steps that are to be sampled has no sound density."""
