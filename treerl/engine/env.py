"""What an environment is: a Markov decision process in Gymnasium's functional vocabulary."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from treerl.engine.kernel import Coefficients
from treerl.engine.policy import Policy
from treerl.engine.task import Samples
from treerl.engine.tree import State
from treerl.errors import InputError


@dataclass(frozen=True)
class Slope:
    """Which way a deterministic move went: what one of second order looks back at."""

    value: Tensor  # [M, ...] the direction that the network gave
    stride: int  # steps that the move took

    def take(self, index: Tensor | slice) -> "Slope":
        """The rows `index`."""
        return Slope(self.value[index], self.stride)


@dataclass(frozen=True)
class Leap:
    """A deterministic move over several steps at once, by one network evaluation a row."""

    x: Tensor  # [M, ...] where it leads to
    slope: Tensor  # [M, ...] the direction that the network gave where it began
    x0: Tensor | None  # [M, ...] the finished sample that this implies


def no_leap(env: "Env") -> InputError:
    """What is said where a tail would leap in an environment that does not."""
    return InputError(
        "tree.tail_stride: expected 1, tail_order 1 and no granularities above 1, as "
        f"{type(env).__name__} takes every step, got a tail that leaps"
    )


class Env(ABC):
    """State = (task, step, x), action = the next x, and samples at the end for rewards to score.

    Nothing is hidden between two calls, so any state can be branched, stored and taken up again.
    Two properties and one method make an environment; here a flow on the plane:

        class Plane(Env):
            steps, shape = 8, (2,)

            def policy(self, state, stochastic):
                velocity = net(state.x, state.step)
                return coefficients.gaussian(state.x, velocity, state.step)
    """

    leaps: ClassVar[bool] = False  # whether `leap` is implemented

    tasks: tuple[Any, ...] = ()  # row r of a state's `task` means `tasks[r]`

    @property
    @abstractmethod
    def steps(self) -> int:
        """T, the number of steps."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """The shape of one x."""

    @abstractmethod
    def policy(self, state: State, stochastic: bool) -> Policy:
        """The distribution of the next x: one network evaluation a row.

        Its mode is taken when not stochastic.
        """

    @property
    def latent_dtype(self) -> torch.dtype:
        """The dtype that states are stored, scored and fed back in."""
        return torch.float32

    @property
    def device(self) -> torch.device:
        """Where the policy runs."""
        return torch.device("cpu")

    @property
    def latent_device(self) -> torch.device:
        """Where the states of a tree are kept."""
        return self.device

    @property
    def step_coefficients(self) -> Coefficients | None:
        """The numbers of all sampled steps, for objectives that compare them; None without them."""
        return None

    @property
    def sample_bytes(self) -> int:
        """Bytes of one finished sample; where they are many, few are made and scored at once."""
        return 0

    def with_tasks(self, tasks: Sequence[Any]) -> Self:
        """The same environment over these tasks."""
        env = copy.copy(self)
        env.tasks = tuple(tasks)
        return env

    def with_steps(self, steps: int) -> Self:
        """The same environment with another number of steps."""
        raise InputError(f"env.steps: {type(self).__name__} always takes {self.steps}, got {steps}")

    def initial(self, task: Tensor, noise: Tensor) -> State:
        """The states at step 0 for task rows `[M]` and standard normal draws `[M, *shape]`."""
        return State(noise, torch.zeros_like(task), task)

    def walking(self, stochastic: bool) -> AbstractContextManager[None]:
        """Held open over levels that are alike; those not sampled have no densities to replay."""
        return nullcontext()

    def transition(self, state: State, action: Tensor) -> State:
        """The state after taking `action` `[M, ...]`."""
        return State(action, state.step + 1, state.task)

    def leap(self, state: State, stride: int, before: Slope | None) -> Leap:
        """Deterministically over `stride` steps, for tails that take fewer evaluations.

        `before` is the slope of the move that led to these states: with it this one is of second
        order. `leaps` says that there is such a move.
        """
        raise no_leap(self)

    def terminal(self, state: State) -> Tensor:
        """Whether each state is finished `[M]`."""
        return state.step >= self.steps

    def samples(self, state: State) -> Samples:
        """What rewards score of finished states: their x, unless the environment decodes."""
        rows = state.task.tolist()
        tasks = tuple(self.tasks[row] for row in rows)
        return Samples(state.x.detach().cpu(), tasks, state.task.cpu())

    def sigma(self, step: Tensor) -> Tensor:
        """The noise level `[M]` after each number of steps `[M]`, 1 at the start, 0 after all T."""
        return 1 - step.double() / self.steps

    def noised(self, x0: Tensor, eps: Tensor, step: Tensor) -> Tensor:
        """Finished states noised to a step, for objectives on leaves (forward-process losses)."""
        raise InputError(
            f"objective: {type(self).__name__} has no forward process for a loss on leaves"
        )

    def validate_stds(self, stochastic: tuple[bool, ...]) -> None:
        """`NumericsError` when a step that is to be sampled has no sound density."""
        return
