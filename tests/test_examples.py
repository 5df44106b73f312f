"""The examples run as they stand, are short, and what they print shows that they learned."""

import re
from pathlib import Path

import pytest
import torch
from printing import EXAMPLES, printed
from torch import Tensor


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_an_example_fits_on_a_screen(path: Path) -> None:
    most = 10 if path.stem == "session" else 40
    assert len(path.read_text(encoding="utf-8").splitlines()) <= most


@pytest.mark.slow
def test_the_flow_on_the_plane_comes_near_its_point() -> None:
    rewards = [float(line.split()[-1]) for line in printed("plane_flow.py")]
    assert len(rewards) == 5
    # before training -1.85 on average over seeds, with a spread of 0.17
    assert rewards[0] == pytest.approx(-1.85, abs=0.6) and rewards[-1] > -0.1


@pytest.mark.slow
def test_two_weightings_are_compared_over_seeds() -> None:
    rows = [
        re.search(r"reward (-[\d.]+) ± ([\d.]+)$", row) for row in printed("compare_weightings.py")
    ]
    figures = [(float(row[1]), float(row[2])) for row in rows if row]
    assert len(figures) == 2
    assert all(mean > -0.3 and 0 < half < 0.3 for mean, half in figures)


# the regulator's own numbers
DRIFT, EFFORT, STD = 1.2, 0.5, 0.3


def bill(gains: Tensor) -> Tensor:
    """E[Σ place² + force²/2] from a place of N(0, 1), exactly: Lyapunov's recursion.

    A place p with cost-to-go c p² moves to N((drift - gain) p, std²), whose expected cost is
    c ((drift - gain)² p² + std²).
    """
    cost = torch.zeros((), dtype=torch.float64)
    of_noise = torch.zeros((), dtype=torch.float64)
    for gain in gains.flip(0):
        of_noise = of_noise + STD**2 * cost
        cost = 1 + EFFORT * gain**2 + (DRIFT - gain) ** 2 * cost
    return cost + of_noise


@pytest.mark.slow
def test_trees_come_within_a_hundredth_of_the_best_regulator() -> None:
    rows = [re.findall(r"\d\.\d+", row) for row in printed("regulator.py")]
    trained, best = (torch.tensor([float(gain) for gain in row]).double() for row in rows)
    optimum = best.clone().requires_grad_()
    gradient = torch.autograd.grad(bill(optimum), optimum)[0]
    assert float(gradient.abs().max()) < 1e-3  # Riccati's gains are where the bill is flat
    assert float(bill(torch.zeros(5))) > 6 * float(bill(best))  # where the training began
    assert float(bill(best)) <= float(bill(trained)) < 1.01 * float(bill(best))


@pytest.mark.slow
def test_an_outside_learner_finds_better_noise_than_none_and_than_the_models_own() -> None:
    rows = printed("ppo.py", "0", "1344")
    assert [row[:14].strip() for row in rows] == ["no noise", "its own noise", "PPO's noise"]
    none, own, learned = (float(row.split()[-1]) for row in rows)
    assert learned > max(none, own) + 0.03
