"""Kernels: the coefficients of one step, the density that samples, and the edges of the noise schedule."""

import math

import pytest
import torch
from oracle import KERNELS, closed_form, log_density, published, schedule

from treerl.engine.kernel import CPS, ODE, DanceSDE, FlowSDE, Gaussian, Kernel, refuse_unsound
from treerl.engine.schedule import Flow
from treerl.errors import NumericsError

LOG_2_PI_E = math.log(2 * math.pi * math.e)


@pytest.mark.parametrize(
    "kernel", [*KERNELS, FlowSDE(0.3), DanceSDE(1.0), CPS(0.3), ODE()], ids=str
)
@pytest.mark.parametrize("steps", [4, 10, 28])
@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize(("storage", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 5e-7)])
def test_q1_a_step_has_the_published_mean_and_std(
    kernel: Kernel, steps: int, shift: float, storage: torch.dtype, tolerance: float
) -> None:
    noise = schedule(steps, shift)
    x, v = torch.tensor([[0.7, -1.3]], dtype=storage), torch.tensor([[-0.4, 0.9]], dtype=storage)
    table = kernel.table(noise)
    for step, (now, after) in enumerate(
        zip(noise.sigma[:-1].tolist(), noise.sigma[1:].tolist(), strict=True)
    ):
        found = table.gaussian(x, v, torch.tensor([step]))
        expected = [
            published(kernel, now, after, a, b)
            for a, b in zip(x[0].tolist(), v[0].tolist(), strict=True)
        ]
        assert found.mean.dtype == found.std.dtype == storage
        assert found.mean[0].tolist() == pytest.approx(
            [mean for mean, _ in expected], abs=tolerance * 2
        )
        assert float(found.std) == pytest.approx(expected[0][1], abs=tolerance)


def test_q1_the_first_std_of_flow_sde_is_its_noise() -> None:
    # algorithm.md 1.3: at sigma 1 the gap is taken at the next sigma, which makes s_0 = a exactly
    for steps in (4, 10, 28):
        assert float(FlowSDE(0.7).table(schedule(steps, 3)).std[0]) == pytest.approx(0.7, abs=1e-15)


def test_q1_stds_of_sd35_at_ten_steps_are_the_measured_ones() -> None:
    sigma = [1.0, 0.9601, 0.9133, 0.8577, 0.7904, 0.7073, 0.6022, 0.4649, 0.2780, 0.0089, 0.0]
    noise = torch.tensor(sigma, dtype=torch.float64)
    std = FlowSDE(0.7).table(Flow(time=noise[:-1], sigma=noise)).std
    expected = [0.700, 0.743, 0.536, 0.446, 0.392, 0.353, 0.319, 0.282, 0.225, 0.0063]
    assert std.tolist() == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("kernel", [FlowSDE(0), DanceSDE(0), CPS(0)], ids=str)
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_a_kernel_without_noise_is_the_ode(kernel: Kernel, shift: float) -> None:
    found, expected = kernel.table(schedule(10, shift)), ODE().table(schedule(10, shift))
    for one, other in zip(vars(found).values(), vars(expected).values(), strict=True):
        assert torch.allclose(one, other, rtol=0, atol=1e-15)


@pytest.mark.parametrize(
    "kernel", [FlowSDE(0.3), FlowSDE(0.7), FlowSDE(1.2), *KERNELS, DanceSDE(1), CPS(0.4)], ids=str
)
def test_q2_the_mean_log_prob_of_own_samples_is_minus_the_entropy(kernel: Kernel) -> None:
    generator, count = torch.Generator().manual_seed(3), 100_000
    table = kernel.table(schedule(10, 3))
    for step in range(9):
        state = torch.tensor([[0.3]], dtype=torch.float64)
        policy = table.gaussian(state, -state, torch.tensor([step])).take(
            torch.zeros(count, dtype=torch.int64)
        )
        drawn = policy.sample(
            torch.randn(count, 1, generator=generator, dtype=torch.float64), torch.float64
        )
        log_prob = policy.log_prob(drawn)
        expected = -math.log(published(kernel, *_interval(step), 0, 0)[1]) - 0.5 * LOG_2_PI_E
        assert abs(float(log_prob.mean()) - expected) <= 4 * float(log_prob.std()) / math.sqrt(
            count
        )


def _interval(step: int) -> tuple[float, float]:
    sigma = schedule(10, 3).sigma.tolist()
    return sigma[step], sigma[step + 1]


def test_log_prob_is_the_normal_density_averaged_over_dimensions() -> None:
    generator = torch.Generator().manual_seed(3)
    mean, x = (torch.randn(4, 3, 2, generator=generator, dtype=torch.float64) for _ in range(2))
    std = torch.tensor([0.1, 0.5, 1.0, 2.0], dtype=torch.float64)
    assert torch.allclose(
        Gaussian(mean, std).log_prob(x),
        log_density(x, mean, std).flatten(1).mean(1),
        rtol=0,
        atol=1e-12,
    )


def test_an_ode_step_has_no_density() -> None:
    table = ODE().table(schedule(4))
    x = torch.zeros(1, 2)
    with pytest.raises(NumericsError, match="no density"):
        table.gaussian(x, x, torch.tensor([0])).log_prob(x)


@pytest.mark.parametrize("kernel", [*KERNELS, ODE()], ids=str)
@pytest.mark.parametrize("top", [1.0, 1 - 1e-7, 1 - 1e-6, 1 - 1e-3, 0.5, 1e-3, 1e-7])
@pytest.mark.parametrize("gap", [0.0, 1e-8, 1e-4, 1e-1])
def test_n6_any_sigma_gives_finite_numbers_or_a_named_error(
    kernel: Kernel, top: float, gap: float
) -> None:
    sigma = torch.tensor([top, top - gap, (top - gap) / 2, 0], dtype=torch.float64)
    try:
        noise = Flow(time=sigma[:-1], sigma=sigma)
        table = kernel.table(noise)
        sampled = (not isinstance(kernel, ODE), False, False)
        refuse_unsound(table, noise, sampled)
    except NumericsError as error:
        named = all(part in str(error) for part in ("step 0", "sigma")) and (
            "std" in str(error) or "overshoots" in str(error)
        )
        assert "schedule" in str(error) or named
        return
    x = torch.ones(1, 1, dtype=torch.float64)
    policy = table.gaussian(x, x, torch.tensor([0]))
    assert math.isfinite(float(policy.mean)) and math.isfinite(float(policy.std))
    if sampled[0]:
        assert math.isfinite(float(policy.log_prob(x)))


@pytest.mark.parametrize(
    "sigma",
    [
        [1, 1, 0],
        [1, 0.5, 0.6, 0],
        [1.1, 0.5, 0],
        [1, 0.5, -0.1],
        [1, math.nan, 0],
        [math.inf, 0.5, 0],
    ],
    ids=str,
)
def test_n6_a_schedule_that_does_not_fall_from_one_to_zero_is_refused(sigma: list[float]) -> None:
    with pytest.raises(NumericsError, match="schedule: expected"):
        Flow(time=torch.zeros(len(sigma) - 1), sigma=torch.tensor(sigma, dtype=torch.float64))


def test_n6_the_last_step_of_cps_has_no_density_and_is_refused() -> None:
    noise = schedule(10, 3)
    table = CPS(0.8).table(noise)
    refuse_unsound(table, noise, (True,) * 9 + (False,))
    with pytest.raises(NumericsError, match=r"step 9 \(sigma 0.25\) has std 0,"):
        refuse_unsound(table, noise, (True,) * 10)


@pytest.mark.parametrize("noise", [1e-3, 30.0])
def test_n6_a_std_outside_the_sound_range_is_refused_where_it_is_sampled_and_only_there(
    noise: float,
) -> None:
    levels = schedule(4)
    table = DanceSDE(noise).table(levels)
    refuse_unsound(table, levels, (False,) * 4)
    with pytest.raises(
        NumericsError, match=rf"step 1 \(sigma 0.75\) has std {float(table.std[1]):.6g}, outside"
    ):
        refuse_unsound(table, levels, (False, True, False, False))


@pytest.mark.parametrize("below", [0, 1e-12, 1e-7, 1e-6, 5e-4])
def test_n6_a_schedule_that_starts_just_below_one_has_the_std_of_one_that_starts_at_one(
    below: float,
) -> None:
    # flow_grpo guards by `== 1`: from 1 - 1e-6 its first std is 695
    sigma = torch.tensor([1 - below, 0.9, 0.5, 0], dtype=torch.float64)
    assert float(FlowSDE(0.7).table(Flow(time=sigma[:-1], sigma=sigma)).std[0]) == pytest.approx(
        0.7, rel=1e-2
    )


def test_n7_every_step_reads_its_own_row_for_any_schedule() -> None:
    generator = torch.Generator().manual_seed(7)
    for _ in range(1000):
        steps = int(torch.randint(2, 60, (1,), generator=generator))
        noise = schedule(steps, 0.5 + 5 * float(torch.rand(1, generator=generator)))
        table, order = DanceSDE().table(noise), torch.randperm(steps, generator=generator)
        ones = torch.ones(steps, 1, dtype=torch.float64)
        found = table.gaussian(ones, 0 * ones, order)
        assert torch.equal(found.mean[:, 0], table.state[order]) and torch.equal(
            found.std, table.std[order]
        )


def test_the_closed_form_agrees_with_the_table_composed() -> None:
    noise = schedule(10, 3)
    for kernel in KERNELS:
        oracle, table = closed_form(kernel, noise.sigma.tolist(), 0.4, 0.5), kernel.table(noise)
        assert torch.allclose(
            torch.tensor(oracle.c, dtype=torch.float64), table.prediction, rtol=0, atol=1e-13
        )
        assert torch.allclose(
            torch.tensor(oracle.s, dtype=torch.float64), table.std, rtol=0, atol=1e-13
        )
