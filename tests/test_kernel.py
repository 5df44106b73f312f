"""Kernels: the coefficients of one step, the density that samples, the edges of the schedule."""

import math
from itertools import pairwise

import pytest
import torch
from oracle import KERNELS, closed_form, published, schedule
from plain import Prescribed, log_density

from treerl.engine.kernel import CPS, ODE, DanceSDE, FlowSDE, Kernel, validate_stds
from treerl.engine.policy import Gaussian
from treerl.engine.schedule import Flow
from treerl.errors import NumericsError

LOG_2_PI_E = math.log(2 * math.pi * math.e)


@pytest.mark.parametrize(
    "kernel", [*KERNELS, FlowSDE(0.3), DanceSDE(1.0), CPS(0.3), ODE()], ids=str
)
@pytest.mark.parametrize("steps", [4, 10, 28])
@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 5e-7)])
def test_a_step_has_the_published_mean_and_std(
    kernel: Kernel, steps: int, shift: float, dtype: torch.dtype, tolerance: float
) -> None:
    noise = schedule(steps, shift)
    x = torch.tensor([[0.7, -1.3]], dtype=dtype)
    v = torch.tensor([[-0.4, 0.9]], dtype=dtype)
    coefficients = kernel.coefficients(noise)
    for step, (now, after) in enumerate(pairwise(noise.sigma.tolist())):
        policy = coefficients.gaussian(x, v, torch.tensor([step]))
        pairs = zip(x[0].tolist(), v[0].tolist(), strict=True)
        expected = [published(kernel, now, after, a, b) for a, b in pairs]
        means = [mean for mean, _ in expected]
        assert policy.mean.dtype == policy.std.dtype == dtype
        assert policy.mean[0].tolist() == pytest.approx(means, abs=tolerance * 2)
        assert float(policy.std) == pytest.approx(expected[0][1], abs=tolerance)


def test_the_first_std_of_flow_sde_is_its_noise_level() -> None:
    # at sigma 1 the gap 1 - sigma is taken at the next sigma, which makes s_0 = a exactly
    for steps in (4, 10, 28):
        std = FlowSDE(0.7).coefficients(schedule(steps, 3)).std
        assert float(std[0]) == pytest.approx(0.7, abs=1e-15)


def test_stds_of_sd35_at_ten_steps_are_the_measured_ones() -> None:
    sigma = [1.0, 0.9601, 0.9133, 0.8577, 0.7904, 0.7073, 0.6022, 0.4649, 0.2780, 0.0089, 0.0]
    noise = torch.tensor(sigma, dtype=torch.float64)
    std = FlowSDE(0.7).coefficients(Flow(time=noise[:-1], sigma=noise)).std
    expected = [0.700, 0.743, 0.536, 0.446, 0.392, 0.353, 0.319, 0.282, 0.225, 0.0063]
    assert std.tolist() == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("kernel", [FlowSDE(0), DanceSDE(0), CPS(0)], ids=str)
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_a_kernel_without_noise_is_the_ode(kernel: Kernel, shift: float) -> None:
    noiseless = kernel.coefficients(schedule(10, shift))
    ode = ODE().coefficients(schedule(10, shift))
    for row, expected in zip(vars(noiseless).values(), vars(ode).values(), strict=True):
        assert torch.allclose(row, expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize(
    "kernel", [FlowSDE(0.3), FlowSDE(0.7), FlowSDE(1.2), *KERNELS, DanceSDE(1), CPS(0.4)], ids=str
)
def test_the_mean_log_prob_of_own_samples_is_minus_the_entropy(kernel: Kernel) -> None:
    generator = torch.Generator().manual_seed(3)
    count = 100_000
    coefficients = kernel.coefficients(schedule(10, 3))
    for step, (now, after) in enumerate(pairwise(schedule(10, 3).sigma.tolist()[:-1])):
        state = torch.tensor([[0.3]], dtype=torch.float64)
        policy = coefficients.gaussian(state, -state, torch.tensor([step]))
        policy = policy.take(torch.zeros(count, dtype=torch.int64))
        z = torch.randn(count, 1, generator=generator, dtype=torch.float64)
        log_prob = policy.log_prob(policy.sample(Prescribed(z), torch.float64))
        expected = -math.log(published(kernel, now, after, 0, 0)[1]) - 0.5 * LOG_2_PI_E
        error = 4 * float(log_prob.std()) / math.sqrt(count)
        assert abs(float(log_prob.mean()) - expected) <= error


def test_log_prob_is_the_normal_density_averaged_over_dimensions() -> None:
    generator = torch.Generator().manual_seed(3)
    mean, x = (torch.randn(4, 3, 2, generator=generator, dtype=torch.float64) for _ in range(2))
    std = torch.tensor([0.1, 0.5, 1.0, 2.0], dtype=torch.float64)
    expected = log_density(x, mean, std).flatten(1).mean(1)
    assert torch.allclose(Gaussian(mean, std).log_prob(x), expected, rtol=0, atol=1e-12)


def test_an_ode_step_has_no_density() -> None:
    x = torch.zeros(1, 2)
    policy = ODE().coefficients(schedule(4)).gaussian(x, x, torch.tensor([0]))
    with pytest.raises(NumericsError, match="no density"):
        policy.log_prob(x)


@pytest.mark.parametrize("kernel", [*KERNELS, ODE()], ids=str)
@pytest.mark.parametrize("top", [1.0, 1 - 1e-7, 1 - 1e-6, 1 - 1e-3, 0.5, 1e-3, 1e-7])
@pytest.mark.parametrize("gap", [0.0, 1e-8, 1e-4, 1e-1])
def test_any_sigma_gives_finite_numbers_or_a_named_error(
    kernel: Kernel, top: float, gap: float
) -> None:
    sigma = torch.tensor([top, top - gap, (top - gap) / 2, 0], dtype=torch.float64)
    sampled = not isinstance(kernel, ODE)
    try:
        noise = Flow(time=sigma[:-1], sigma=sigma)
        coefficients = kernel.coefficients(noise)
        validate_stds(coefficients, noise, (sampled, False, False))
    except NumericsError as error:
        text = str(error)
        named = "step 0" in text and "sigma" in text and ("std" in text or "overshoots" in text)
        assert "schedule" in text or named
        return
    x = torch.ones(1, 1, dtype=torch.float64)
    policy = coefficients.gaussian(x, x, torch.tensor([0]))
    assert math.isfinite(float(policy.mean)) and math.isfinite(float(policy.std))
    if sampled:
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
def test_a_schedule_that_does_not_fall_from_one_to_zero_is_refused(sigma: list[float]) -> None:
    with pytest.raises(NumericsError, match="schedule: expected"):
        Flow(time=torch.zeros(len(sigma) - 1), sigma=torch.tensor(sigma, dtype=torch.float64))


def test_the_last_step_of_cps_has_no_density_and_is_refused() -> None:
    noise = schedule(10, 3)
    coefficients = CPS(0.8).coefficients(noise)
    validate_stds(coefficients, noise, (True,) * 9 + (False,))
    with pytest.raises(NumericsError, match=r"step 9 \(sigma 0.25\) has std 0,"):
        validate_stds(coefficients, noise, (True,) * 10)


@pytest.mark.parametrize("noise_level", [1e-3, 30.0])
def test_a_std_outside_the_sound_range_is_refused_where_it_is_sampled_and_only_there(
    noise_level: float,
) -> None:
    noise = schedule(4)
    coefficients = DanceSDE(noise_level).coefficients(noise)
    validate_stds(coefficients, noise, (False,) * 4)
    std = f"{float(coefficients.std[1]):.6g}"
    with pytest.raises(NumericsError, match=rf"step 1 \(sigma 0.75\) has std {std}, outside"):
        validate_stds(coefficients, noise, (False, True, False, False))


def test_a_sampled_step_that_overshoots_is_refused_and_a_deterministic_one_is_not() -> None:
    # 1 - g² Δ / (2σ) < 0, with a std of g sqrt(Δ) = 1.34 that is sound
    sigma = torch.tensor([1, 0.4, 0.05, 0.0], dtype=torch.float64)
    noise = Flow(time=sigma[:-1], sigma=sigma)
    coefficients = DanceSDE(2.26).coefficients(noise)
    assert float(coefficients.state[1]) < 0 < float(coefficients.std[1]) < math.exp(2)
    with pytest.raises(NumericsError, match=r"step 1 \(sigma 0.4\) overshoots: .* by -1.23;"):
        validate_stds(coefficients, noise, (False, True, False))
    validate_stds(coefficients, noise, (False, False, False))


@pytest.mark.parametrize("below", [0, 1e-12, 1e-7, 1e-6, 5e-4])
def test_a_schedule_that_starts_just_below_one_has_the_std_of_one_that_starts_at_one(
    below: float,
) -> None:
    # flow_grpo guards by `== 1`: from 1 - 1e-6 its first std is 695
    sigma = torch.tensor([1 - below, 0.9, 0.5, 0], dtype=torch.float64)
    std = FlowSDE(0.7).coefficients(Flow(time=sigma[:-1], sigma=sigma)).std
    assert float(std[0]) == pytest.approx(0.7, rel=1e-2)


def test_every_step_reads_its_own_row_for_any_schedule() -> None:
    generator = torch.Generator().manual_seed(7)
    for _ in range(1000):
        steps = int(torch.randint(2, 60, (1,), generator=generator))
        noise = schedule(steps, 0.5 + 5 * float(torch.rand(1, generator=generator)))
        coefficients = DanceSDE().coefficients(noise)
        order = torch.randperm(steps, generator=generator)
        ones = torch.ones(steps, 1, dtype=torch.float64)
        policy = coefficients.gaussian(ones, 0 * ones, order)
        assert torch.equal(policy.mean[:, 0], coefficients.state[order])
        assert torch.equal(policy.std, coefficients.std[order])


def test_the_closed_form_agrees_with_the_coefficients_composed() -> None:
    noise = schedule(10, 3)
    for kernel in KERNELS:
        oracle = closed_form(kernel, noise.sigma.tolist(), 0.4, 0.5)
        coefficients = kernel.coefficients(noise)
        factors = torch.tensor(oracle.c, dtype=torch.float64)
        stds = torch.tensor(oracle.s, dtype=torch.float64)
        assert torch.allclose(factors, coefficients.prediction, rtol=0, atol=1e-13)
        assert torch.allclose(stds, coefficients.std, rtol=0, atol=1e-13)


@pytest.mark.parametrize("kernel", [*KERNELS, ODE()], ids=str)
def test_the_expected_sample_takes_a_latent_to_the_data_of_a_point_mass(kernel: Kernel) -> None:
    # of data at m alone v = (x - m) / sigma, so that x̂₀ is m whatever the latent and the step
    noise = schedule(6, 3)
    x = torch.linspace(-3, 3, 6, dtype=torch.float64)[:, None]
    v = (x - 0.7) / noise.sigma[:-1, None]
    x0 = noise.denoised(x, v, torch.arange(6))
    assert torch.allclose(x0, torch.full_like(x0, 0.7), rtol=0, atol=1e-14)
    eps = torch.randn(6, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    again = noise.noised(x0, eps, torch.arange(6))
    sigma = noise.sigma[:-1, None]
    assert torch.allclose(again, (1 - sigma) * 0.7 + sigma * eps, rtol=0, atol=1e-15)
