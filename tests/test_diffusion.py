"""Kernels on diffusion models (ε and v prediction): DDIM-η against its paper and diffusers."""

import math

import pytest
import torch
from diffusers import DDIMScheduler
from oracle import schedule
from plain import Prescribed
from pydantic import TypeAdapter, ValidationError

from treerl.engine.kernel import CPS, DDIM, ODE, DanceSDE, FlowSDE, validate_stds
from treerl.engine.schedule import Diffusion
from treerl.errors import InputError, NumericsError

STEPS = 10


def scheduler(predicts: str, zero_snr: bool = False) -> DDIMScheduler:
    ddim = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=0 if zero_snr else 1,
        prediction_type=predicts,
        rescale_betas_zero_snr=zero_snr,
        timestep_spacing="trailing" if zero_snr else "leading",
    )
    ddim.set_timesteps(STEPS)
    return ddim


def levels(ddim: DDIMScheduler) -> Diffusion:
    """The schedule of a diffusers scheduler, in float64."""
    alphas = ddim.alphas_cumprod.double()
    time = ddim.timesteps
    before = time - ddim.config.num_train_timesteps // STEPS
    last = torch.where(before >= 0, alphas[before.clamp(min=0)], ddim.final_alpha_cumprod.double())
    alpha_bar = torch.cat([alphas[time[:1]], last])
    if ddim.config.prediction_type == "v_prediction":
        return Diffusion(time=time, alpha_bar=alpha_bar, predicts="v")
    return Diffusion(time=time, alpha_bar=alpha_bar)


@pytest.mark.parametrize("predicts", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_ddim_steps_as_diffusers_scheduler_does(predicts: str, eta: float) -> None:
    ddim = scheduler(predicts)
    coefficients = DDIM(eta).coefficients(levels(ddim))
    generator = torch.Generator().manual_seed(0)
    x, prediction, noise = (
        torch.randn(2, 3, generator=generator, dtype=torch.float64) for _ in range(3)
    )
    for step, time in enumerate(ddim.timesteps):
        policy = coefficients.gaussian(x, prediction, torch.full((2,), step))
        random = {"eta": eta, "variance_noise": noise} if eta else {}
        expected = ddim.step(prediction, time, x, return_dict=False, **random)[0]
        drawn = policy.sample(Prescribed(noise), torch.float64)
        torch.testing.assert_close(drawn, expected, atol=2e-6, rtol=2e-6)  # its alphas are float32


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim_is_the_published_gaussian(eta: float) -> None:
    diffusion = levels(scheduler("epsilon"))
    coefficients = DDIM(eta).coefficients(diffusion)
    x, epsilon = 0.8, -1.3
    for step, (now, after) in enumerate(
        zip(diffusion.alpha_bar[:-1].tolist(), diffusion.alpha_bar[1:].tolist(), strict=True)
    ):
        std = eta * math.sqrt((1 - after) / (1 - now) * (1 - now / after))
        sample = (x - math.sqrt(1 - now) * epsilon) / math.sqrt(now)
        mean = math.sqrt(after) * sample + math.sqrt(1 - after - std**2) * epsilon
        assert float(coefficients.std[step]) == pytest.approx(std, abs=1e-12)
        composed = (
            float(coefficients.state[step]) * x + float(coefficients.prediction[step]) * epsilon
        )
        assert composed == pytest.approx(mean, abs=1e-12)


def test_both_predictions_of_one_network_take_the_same_step() -> None:
    noise = levels(scheduler("epsilon"))
    velocity = levels(scheduler("v_prediction"))
    x = torch.tensor([[0.4, -2.0]], dtype=torch.float64)
    epsilon = torch.tensor([[1.1, 0.2]], dtype=torch.float64)
    for kernel in (ODE(), DDIM(1.0), CPS(0.6)):
        for step in range(STEPS):
            signal = noise.signal[step]
            sigma = noise.noise[step]
            v = signal * epsilon - sigma * (x - sigma * epsilon) / signal
            where = torch.tensor([step])
            by_noise = kernel.coefficients(noise).gaussian(x, epsilon, where)
            by_v = kernel.coefficients(velocity).gaussian(x, v, where)
            torch.testing.assert_close(by_noise.mean, by_v.mean, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("kernel", [ODE(), DDIM(0.0), CPS(0.0)], ids=str)
def test_without_noise_every_kernel_is_the_ode(kernel: ODE | DDIM | CPS) -> None:
    for levels_of in (
        levels(scheduler("epsilon")),
        levels(scheduler("v_prediction", zero_snr=True)),
        schedule(STEPS, 3),
    ):
        coefficients = kernel.coefficients(levels_of)
        plain = ODE().coefficients(levels_of)
        torch.testing.assert_close(coefficients.state, plain.state, atol=1e-15, rtol=0)
        torch.testing.assert_close(coefficients.prediction, plain.prediction, atol=1e-15, rtol=0)
        assert not bool(coefficients.std.any())


def test_the_ode_on_a_flow_is_eulers_step() -> None:
    flow = schedule(STEPS, 3)
    coefficients = ODE().coefficients(flow)
    assert torch.equal(coefficients.state, torch.ones(STEPS, dtype=torch.float64))
    torch.testing.assert_close(coefficients.prediction, flow.sigma.diff(), atol=1e-15, rtol=0)


def test_ddim_at_eta_one_forgets_the_noise_of_pure_noise() -> None:
    # at alpha 0 the state says nothing, so that the whole of the next noise level is fresh
    diffusion = levels(scheduler("v_prediction", zero_snr=True))
    assert float(diffusion.alpha_bar[0]) == pytest.approx(0, abs=1e-12)
    coefficients = DDIM(1.0).coefficients(diffusion)
    assert float(coefficients.std[0]) == pytest.approx(float(diffusion.noise[1]), abs=1e-9)
    validate_stds(coefficients, diffusion, tuple(step < STEPS - 1 for step in range(STEPS)))


@pytest.mark.parametrize("kernel", [FlowSDE(), DanceSDE()], ids=str)
def test_a_kernel_of_flows_is_refused_on_a_diffusion_model(kernel: FlowSDE | DanceSDE) -> None:
    with pytest.raises(
        InputError, match=r"^kernel.name: (flow|dance)-sde is for rectified flows, .*; use ddim"
    ):
        kernel.coefficients(levels(scheduler("epsilon")))


def test_a_schedule_that_cannot_be_walked_is_refused() -> None:
    time = torch.zeros(2)
    with pytest.raises(NumericsError, match="strictly increasing alphas"):
        Diffusion(time=time, alpha_bar=torch.tensor([0.5, 0.4, 0.9], dtype=torch.float64))
    with pytest.raises(NumericsError, match=r"alphas in \[0, 1\]"):
        Diffusion(time=time, alpha_bar=torch.tensor([0.1, 0.4, 1.9], dtype=torch.float64))
    with pytest.raises(NumericsError, match="at alpha 0 a prediction of the noise says nothing"):
        Diffusion(time=time, alpha_bar=torch.tensor([0.0, 0.4, 0.9], dtype=torch.float64))


@pytest.mark.parametrize("kernel", [DDIM, CPS])
def test_a_noise_level_above_one_is_outside_the_bounds_that_ddim_and_cps_declare(
    kernel: type[DDIM | CPS],
) -> None:
    assert TypeAdapter(kernel).validate_python({"noise_level": 1.0}) == kernel(1.0)
    for noise_level in (1.5, -0.1):
        with pytest.raises(ValidationError, match="noise_level"):
            TypeAdapter(kernel).validate_python({"noise_level": noise_level})
