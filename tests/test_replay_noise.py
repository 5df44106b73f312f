"""The noise of replay is measured before training, and a clip range within it is refused."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from ended_runs import run
from oracle import Neural, schedule
from test_resume import inside as inside

from treerl.engine.branching import window
from treerl.engine.kernel import FlowSDE
from treerl.engine.objective import Clipped
from treerl.engine.objectives.guard import Guard
from treerl.engine.policy import Gaussian
from treerl.engine.recipes import recipes
from treerl.engine.replay import refuse_noise, replay_noise
from treerl.engine.tree import State
from treerl.errors import NumericsError
from treerl.run.reading import read_manifest
from treerl.run.session import Session

SPECS = (window(6, 1, 2, 3), window(6, 3, 2, 3))


class Rough(Neural):
    """A network that rounds differently while it learns, at some steps."""

    by = 0.0
    step = 4

    def policy(self, state: State, stochastic: bool) -> Gaussian:
        policy = super().policy(state, stochastic)
        rounds = torch.is_grad_enabled() * self.by * (state.step == self.step)
        return replace(policy, mean=policy.mean + rounds[:, None] * policy.std[:, None])


def env(by: float = 0.0, step: int = 4) -> Rough:
    env = Rough(FlowSDE(0.7), schedule(6, 3), (4,), torch.float64)
    env.tasks = ("a cat", "a dog")
    env.by = by
    env.step = step
    return env


def test_a_policy_that_is_replayed_exactly_has_no_noise() -> None:
    assert replay_noise(env(), SPECS, rows=5) <= 1e-15


@pytest.mark.parametrize("step", [1, 4])
def test_noise_at_the_first_and_the_last_sampled_step_is_found(step: int) -> None:
    found = replay_noise(env(1e-4, step), SPECS, rows=64)
    # log-probs are means over four dimensions of -(z + 1e-4)^2 / 2
    assert 1e-5 < found < 1e-3


def test_steps_that_no_tree_samples_do_not_count() -> None:
    assert replay_noise(env(1.0, step=0), SPECS, rows=5) <= 1e-15
    assert replay_noise(env(1.0, step=5), SPECS, rows=5) <= 1e-15


def test_a_clip_range_within_the_noise_is_refused() -> None:
    refuse_noise(9e-5, Clipped(clip_range=1e-4))
    with pytest.raises(
        NumericsError, match=r"^objective.clip_range: expected more than 0.0001, by"
    ):
        refuse_noise(1e-4, Clipped(clip_range=1e-4))
    with pytest.raises(NumericsError):
        refuse_noise(float("nan"), Clipped(clip_range=1e-4))


def test_a_range_on_another_ratio_is_not_compared() -> None:
    refuse_noise(1e-4, Guard())
    refuse_noise(1e-4, recipes["nft"].objective)


def test_a_run_measures_it_says_it_and_keeps_it(inside: None) -> None:
    text = " ".join(run(Path("run")).split())
    assert "replay: ratios differ from 1 by 0 through rounding (clip range 0.0001)" in text
    assert read_manifest(Path("run")).replay_noise == 0


def test_a_run_whose_clip_range_is_noise_ends_before_it_has_begun(
    inside: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("treerl.run.session.replay_noise", lambda *_: 2e-4)
    with pytest.raises(NumericsError) as error:
        run(Path("run"))
    assert error.value.code == 3
    assert read_manifest(Path("run")).spent["iterations"] == 0


def test_it_changes_nothing_of_training(inside: None, monkeypatch: pytest.MonkeyPatch) -> None:
    run(Path("with"))
    monkeypatch.setattr(Session, "replay_noise", lambda self: 0.0)
    run(Path("without"))
    rows = [(Path(name) / "metrics.jsonl").read_text() for name in ("with", "without")]
    stripped = [[row.split(', "seconds"')[0] for row in text.splitlines()] for text in rows]
    assert stripped[0] == stripped[1]
