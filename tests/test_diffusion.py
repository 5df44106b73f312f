"""Kernels on diffusion models (ε and v prediction): DDIM-η against its published form and diffusers' scheduler."""

import math

import pytest
import torch
from diffusers import DDIMScheduler
from oracle import schedule

from treerl.engine.kernel import CPS, DDIM, ODE, DanceSDE, FlowSDE, refuse_unsound
from treerl.engine.schedule import Diffusion
from treerl.errors import InputError, NumericsError

STEPS = 10


def scheduler(predicts: str, zero_snr: bool = False) -> DDIMScheduler:
    made = DDIMScheduler(
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
    made.set_timesteps(STEPS)
    return made


def levels(one: DDIMScheduler) -> Diffusion:
    """The schedule of a diffusers scheduler, in float64."""
    alphas, time = one.alphas_cumprod.double(), one.timesteps
    before = time - one.config.num_train_timesteps // STEPS
    last = torch.where(before >= 0, alphas[before.clamp(min=0)], one.final_alpha_cumprod.double())
    kind = "v" if one.config.prediction_type == "v_prediction" else "noise"
    return Diffusion(time=time, alpha_bar=torch.cat([alphas[time[:1]], last]), predicts=kind)  # type: ignore[arg-type]


@pytest.mark.parametrize("predicts", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_ddim_steps_as_diffusers_scheduler_does(predicts: str, eta: float) -> None:
    one = scheduler(predicts)
    table, generator = DDIM(eta).table(levels(one)), torch.Generator().manual_seed(0)
    x, prediction, noise = (
        torch.randn(2, 3, generator=generator, dtype=torch.float64) for _ in range(3)
    )
    for step, time in enumerate(one.timesteps):
        policy = table.gaussian(x, prediction, torch.full((2,), step))
        given = {"eta": eta, "variance_noise": noise} if eta else {}
        expected = one.step(prediction, time, x, return_dict=False, **given)[0]
        # its alphas are float32
        torch.testing.assert_close(
            policy.sample(noise, torch.float64), expected, atol=2e-6, rtol=2e-6
        )


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim_is_the_published_gaussian(eta: float) -> None:
    one = levels(scheduler("epsilon"))
    table = DDIM(eta).table(one)
    x, epsilon = 0.8, -1.3
    for step, (now, after) in enumerate(
        zip(one.alpha_bar[:-1].tolist(), one.alpha_bar[1:].tolist(), strict=True)
    ):
        std = eta * math.sqrt((1 - after) / (1 - now) * (1 - now / after))
        sample = (x - math.sqrt(1 - now) * epsilon) / math.sqrt(now)
        mean = math.sqrt(after) * sample + math.sqrt(1 - after - std**2) * epsilon
        assert float(table.std[step]) == pytest.approx(std, abs=1e-12)
        found = float(table.state[step]) * x + float(table.prediction[step]) * epsilon
        assert found == pytest.approx(mean, abs=1e-12)


def test_both_predictions_of_one_network_take_the_same_step() -> None:
    noise, velocity = levels(scheduler("epsilon")), levels(scheduler("v_prediction"))
    x, epsilon = (
        torch.tensor([[0.4, -2.0]], dtype=torch.float64),
        torch.tensor([[1.1, 0.2]], dtype=torch.float64),
    )
    for kernel in (ODE(), DDIM(1.0), CPS(0.6)):
        for step in range(STEPS):
            signal, sigma = noise.signal[step], noise.noise[step]
            v = signal * epsilon - sigma * (x - sigma * epsilon) / signal
            where = torch.tensor([step])
            one = kernel.table(noise).gaussian(x, epsilon, where)
            other = kernel.table(velocity).gaussian(x, v, where)
            torch.testing.assert_close(one.mean, other.mean, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("kernel", [ODE(), DDIM(0.0), CPS(0.0)], ids=str)
def test_without_noise_every_kernel_is_the_ode(kernel: ODE | DDIM | CPS) -> None:
    for one in (
        levels(scheduler("epsilon")),
        levels(scheduler("v_prediction", zero_snr=True)),
        schedule(STEPS, 3),
    ):
        table, plain = kernel.table(one), ODE().table(one)
        torch.testing.assert_close(table.state, plain.state, atol=1e-15, rtol=0)
        torch.testing.assert_close(table.prediction, plain.prediction, atol=1e-15, rtol=0)
        assert not bool(table.std.any())


def test_the_ode_on_a_flow_is_eulers_step() -> None:
    one = schedule(STEPS, 3)
    table = ODE().table(one)
    assert torch.equal(table.state, torch.ones(STEPS, dtype=torch.float64))
    torch.testing.assert_close(table.prediction, one.sigma.diff(), atol=1e-15, rtol=0)


def test_ddim_at_eta_one_forgets_the_noise_of_pure_noise() -> None:
    # at alpha 0 the state says nothing, so that the whole of the next noise level is fresh
    one = levels(scheduler("v_prediction", zero_snr=True))
    assert float(one.alpha_bar[0]) == pytest.approx(0, abs=1e-12)
    table = DDIM(1.0).table(one)
    assert float(table.std[0]) == pytest.approx(float(one.noise[1]), abs=1e-9)
    refuse_unsound(table, one, tuple(step < STEPS - 1 for step in range(STEPS)))


@pytest.mark.parametrize("kernel", [FlowSDE(), DanceSDE()], ids=str)
def test_a_kernel_of_flows_is_refused_on_a_diffusion_model(kernel: FlowSDE | DanceSDE) -> None:
    with pytest.raises(
        InputError, match=r"^kernel.name: (flow|dance)-sde is for rectified flows, .*; use ddim"
    ):
        kernel.table(levels(scheduler("epsilon")))


def test_a_schedule_that_cannot_be_walked_is_refused() -> None:
    time = torch.zeros(2)
    with pytest.raises(NumericsError, match="strictly increasing alphas"):
        Diffusion(time=time, alpha_bar=torch.tensor([0.5, 0.4, 0.9], dtype=torch.float64))
    with pytest.raises(NumericsError, match=r"alphas in \[0, 1\]"):
        Diffusion(time=time, alpha_bar=torch.tensor([0.1, 0.4, 1.9], dtype=torch.float64))
    with pytest.raises(NumericsError, match="at alpha 0 a prediction of the noise says nothing"):
        Diffusion(time=time, alpha_bar=torch.tensor([0.0, 0.4, 0.9], dtype=torch.float64))
    with pytest.raises(ValueError, match=r"expected a number in \[0, 1\] for ddim, got 1.5"):
        DDIM(1.5)
