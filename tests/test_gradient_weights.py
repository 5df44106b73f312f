"""Weights of siblings that are not equal, and what they do to the gradient's mean and variance."""

import itertools

import density_moments
import pytest
from gradient_cases import (
    BASELINES,
    BINARY,
    COUPLINGS,
    DENSITIES,
    SMALL,
    TERNARY,
    TREES,
    Z,
    deviation,
    one,
    predicted,
    worst,
)
from gradient_samples import readings

from treerl.engine.baseline import (
    LeaveSubtreeOut,
    Prompt,
    Siblings,
    StepGain,
)
from treerl.engine.coupling import (
    Coupling,
    Independent,
    Mirrored,
    Orthogonal,
    Rotated,
)
from treerl.engine.weighting import (
    SoftmaxMeanLogProb,
    SoftmaxSumLogProb,
    SoftmaxValue,
    Uniform,
    Weighting,
)


@pytest.mark.parametrize("coupling", [Independent(), Orthogonal()], ids=["free", "orthogonal"])
@pytest.mark.parametrize("weighting", DENSITIES, ids=lambda w: type(w).__name__)
def test_weights_by_density_leave_an_integral_over_lengths(
    weighting: Weighting, coupling: Coupling
) -> None:
    tree = SMALL.grow(TREES, coupling)
    right = isinstance(coupling, Orthogonal)
    for baseline in (Prompt(), Siblings(), StepGain(), LeaveSubtreeOut()):
        found = readings(SMALL, tree, weighting, baseline)
        for step, reading in found.items():
            exact = density_moments.moments(
                one(SMALL), SMALL.steps, weighting, baseline, step, right, order=5
            )
            # five points to a length: what they miss is far below the error of so few trees
            assert deviation(reading, exact) <= Z, (baseline, step)
            families = SMALL.spec.widths[step]
            factor = density_moments.factor(weighting, baseline, coupling, 2, families, 4)
            assert factor == pytest.approx(exact[0], abs=2e-3)


def test_the_integral_over_lengths_is_the_quadratic_form_where_weights_are_equal() -> None:
    for coupling, baseline, step in itertools.product(
        (Independent(), Orthogonal()), BASELINES, (0, 1)
    ):
        exact = predicted(SMALL, baseline, coupling, step)
        right = isinstance(coupling, Orthogonal)
        integral = density_moments.moments(
            one(SMALL), SMALL.steps, Uniform(), baseline, step, right, order=3
        )
        assert integral == pytest.approx((exact.factor, exact.along, exact.across), abs=1e-7)


@pytest.mark.parametrize(
    ("weighting", "known"),
    [(SoftmaxMeanLogProb(), 24), (SoftmaxSumLogProb(), 24), (SoftmaxValue(), 17)],
    ids=["mean", "sum", "value"],
)
def test_the_mean_under_unequal_weights_is_what_a_family_has_of_its_own_noise(
    weighting: Weighting, known: int
) -> None:
    count = 0
    for coupling in COUPLINGS:
        tree = TERNARY.grow(TREES, coupling)
        for baseline in BASELINES:
            families = TERNARY.spec.widths
            exact = [
                density_moments.factor(weighting, baseline, coupling, 3, families[step], 4)
                for step in TERNARY.sampled
            ]
            if None in exact:
                continue
            count += 1
            found = readings(TERNARY, tree, weighting, baseline)
            for reading, factor in zip(found.values(), exact, strict=True):
                assert factor is not None
                assert abs(reading.factor.z(factor)) <= Z, (coupling, baseline)
    assert count == known  # of 30; the others have no closed form


@pytest.mark.parametrize("coupling", [Mirrored(), Rotated()], ids=lambda c: type(c).__name__)
def test_siblings_whose_noise_sums_to_zero_learn_the_exact_gradient_under_every_weighting(
    coupling: Coupling,
) -> None:
    tree = BINARY.grow(TREES, coupling)
    for baseline in BASELINES[:5]:  # all whose centre siblings share
        for reading in readings(BINARY, tree, SoftmaxValue(0.5), baseline).values():
            assert abs(reading.factor.z(1.0)) <= Z


@pytest.mark.parametrize("weighting", DENSITIES, ids=lambda w: type(w).__name__)
def test_mirrored_and_rotated_siblings_weigh_the_same_by_density(weighting: Weighting) -> None:
    for world, coupling in ((BINARY, Mirrored()), (BINARY, Rotated()), (TERNARY, Rotated())):
        assert density_moments.equal(weighting, coupling, max(world.spec.children))
        tree = world.grow(TREES, coupling)
        assert worst(world, weighting, Prompt(), coupling, tree) <= Z
