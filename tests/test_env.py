"""An environment of a stranger's own: two properties and a method; tasks and samples beside it."""

from pathlib import Path

import pytest
import torch
from plain import SUM, Always, Counted
from torch import Tensor, nn

from treerl.engine.algorithm import Algorithm
from treerl.engine.branching import window
from treerl.engine.env import Env
from treerl.engine.kernel import Coefficients, DanceSDE
from treerl.engine.policy import Gaussian
from treerl.engine.schedule import Flow
from treerl.engine.task import Samples, Task
from treerl.engine.trainer import Trainer
from treerl.engine.tree import State
from treerl.errors import InputError


class Plane(Env):
    """A flow on the plane with a linear velocity, as the contract's docstring has it."""

    steps = 8
    shape = (2,)

    def __init__(self) -> None:
        sigma = torch.linspace(1, 0, 9, dtype=torch.float64)
        self.coefficients: Coefficients = DanceSDE(0.5).coefficients(Flow(sigma[:-1], sigma))
        self.net = nn.Linear(3, 2)
        nn.init.constant_(self.net.weight, 0.1)
        nn.init.zeros_(self.net.bias)

    def policy(self, state: State, stochastic: bool) -> Gaussian:
        inputs = torch.cat([state.x, state.step[:, None] / self.steps], 1)
        gaussian = self.coefficients.gaussian(state.x, self.net(inputs), state.step)
        return gaussian


def test_two_properties_and_a_policy_are_an_environment_that_trains() -> None:
    env = Plane()
    algorithm = Algorithm(branching=Always(window(8, 1, 3, 3)))
    optimizer = Counted(list(env.net.parameters()), 0.3)
    train = Trainer(env, SUM, algorithm, optimizer, 16, max_grad_norm=1e9)
    rewards = [train.iterate(("right",) * 6).metrics["reward"] for _ in range(15)]
    assert sum(rewards[-5:]) > sum(rewards[:5]) + 2


def test_the_environment_contract_needs_steps_a_shape_and_a_policy() -> None:
    assert Env.__abstractmethods__ == {"steps", "shape", "policy"}
    with pytest.raises(TypeError, match="abstract"):
        Env()  # type: ignore[abstract]


def test_what_an_environment_leaves_out_has_a_plain_meaning() -> None:
    env = Plane().with_tasks(("a", "b"))
    assert env.latent_dtype == torch.float32
    assert env.device == torch.device("cpu") == env.latent_device
    noise = torch.randn(3, 2)
    state = env.initial(torch.tensor([1, 0, 1]), noise)
    assert torch.equal(state.x, noise) and state.step.tolist() == [0, 0, 0]
    after = env.transition(state, noise + 1)
    assert torch.equal(after.x, noise + 1) and after.step.tolist() == [1, 1, 1]
    assert torch.equal(after.task, state.task)
    assert env.sigma(torch.tensor([0, 2, 8])).tolist() == [1.0, 0.75, 0.0]
    stages = State(noise, torch.tensor([7, 8, 9]), state.task)
    assert env.terminal(stages).tolist() == [False, True, True]
    env.validate_stds((True,) * 8)
    with pytest.raises(InputError, match=r"env.steps: Plane always takes 8, got 3"):
        env.with_steps(3)


def test_other_tasks_make_another_environment_and_leave_the_first_alone() -> None:
    first = Plane().with_tasks(("a", "b"))
    other = first.with_tasks(("c",))
    assert (first.tasks, other.tasks) == (("a", "b"), ("c",)) and other.net is first.net


def test_samples_are_finished_states_with_their_tasks_and_a_group_for_each() -> None:
    env = Plane().with_tasks(("a", "b"))
    x = torch.randn(3, 2, requires_grad=True)
    samples = env.samples(State(x, torch.full((3,), 8), torch.tensor([1, 0, 1])))
    assert samples.tasks == samples.prompts == ("b", "a", "b") and len(samples) == 3
    assert samples.group.tolist() == [1, 0, 1] and not samples.images.requires_grad
    some = samples.take(torch.tensor([2, 1]))
    assert some.tasks == ("b", "a") and some.group.tolist() == [1, 0]
    assert torch.equal(some.images, x.detach()[[2, 1]])


def test_samples_of_equal_tasks_form_a_group() -> None:
    cat = Task("a cat", metadata={"seed": 3})
    tasks = ["a dog", cat, "a dog", Task("a cat", metadata={"seed": 3}), Task("a cat")]
    samples = Samples.of(torch.zeros(5, 3, 4, 4), tasks)
    assert samples.group.tolist() == [0, 1, 0, 1, 2]
    assert samples.prompts == ("a dog", "a cat", "a dog", "a cat", "a cat")


def test_a_text_is_the_task_with_a_prompt_alone() -> None:
    assert Task.of("a cat") == Task("a cat") == Task.of(Task("a cat"))
    same = Task("a cat", media={"image": Path("cat.png")})
    assert same != Task("a cat") and hash(same) == hash(Task("a cat"))


def test_the_forward_process_is_asked_for_by_name() -> None:
    zeros: Tensor = torch.zeros(1, 2)
    with pytest.raises(InputError, match="Plane has no forward process for a loss on leaves"):
        Plane().noised(zeros, zeros, torch.zeros(1, dtype=torch.int64))
