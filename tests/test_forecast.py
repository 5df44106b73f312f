"""The memory of a run counted on fakes: equal to that of real tensors, and what follows from it."""

from collections.abc import Callable
from math import prod
from pathlib import Path

import pytest
import torch
from forecasts import config, forecast
from torch import nn

from treerl import registry
from treerl.backbone.fake import Fakes
from treerl.backbone.live_bytes import LiveBytes
from treerl.config.algorithm import algorithm_of
from treerl.config.resolve import resolve
from treerl.config.schema import Config
from treerl.run.assemble import build
from treerl.run.forecast import BY_ROWS, Forecast
from treerl.run.measure import rehearsal_of
from treerl.run.peak import CONTEXT, WORKSPACES, Line
from treerl.run.plan import plan_of

FAMILIES = sorted(registry.announced("backbones"))
ROWS = 3


def live(work: Callable[[], object]) -> int:
    with LiveBytes() as counted:
        work()
    peak: int = counted.peak
    return peak


def transient(known: Forecast, rows: int) -> dict[str, int]:
    """What each phase needs beside what stays."""
    known.at(rows)
    return {phase: known.counts[phase, rows] for phase in BY_ROWS}


def real(chosen: Config) -> tuple[dict[str, int], dict[str, int]]:
    """The same of a model of real tensors on the CPU; and the bytes of its parts."""
    session = build(chosen)
    try:
        encode = live(lambda: session.env.with_tasks([session.tasks[0]]))
        rehearsal = rehearsal_of(session)
        counts = {"encode": encode}
        for phase in BY_ROWS:
            counts[phase] = live(getattr(rehearsal, phase)(ROWS))
        weights = {
            name: sum(4 * parameter.numel() for parameter in module.parameters())
            for name, module in session.backbone.denoisers.items()
        }
        trained = sum(4 * parameter.numel() for parameter in rehearsal.parameters)
    finally:
        session.close()
    return counts, {"denoiser": sum(weights.values()) - trained, "trained": trained}


# the ways in which an update differs: what trains, what is recomputed, what a loss compares with
WAYS = [
    ("sd35", "train.trainable=full", "train.gradient_checkpointing=true"),
    ("sd35", "env.guidance=3", "backbone.cfg_grad=true", "train.ema=0.9"),
    ("sd35", "recipe=nft"),
    ("sd35", "objective.kl=0.1", "train.trainable=full"),
]


@pytest.mark.slow
@pytest.mark.parametrize("way", [*((name,) for name in FAMILIES), *WAYS], ids=" ".join)
@pytest.mark.filterwarnings("ignore:In CPU autocast")  # of Mochi, which asks for float32
def test_fakes_need_what_real_tensors_need(way: tuple[str, ...]) -> None:
    known = forecast(*way)
    counts, held = real(config(*way))
    # a tokenizer's numbers are real in both, and some are freed a moment later beside fakes
    assert known.counts["encode", 0] == pytest.approx(counts.pop("encode"), rel=0.02)
    assert transient(known, ROWS) == counts
    assert {"denoiser": known.held.denoiser, "trained": known.held.trained} == held


def test_what_was_there_before_is_not_counted_and_what_is_gone_counts_no_more() -> None:
    x = torch.ones(1000)
    with LiveBytes() as counted:
        y = x[:500].view(5, 100) * 2
        x.add_(1)
        assert (counted.now, counted.peak) == (2000, 2000)
        z = y + 1
        del y
        assert (counted.now, counted.peak) == (2000, 4000)
        del z
    assert (counted.now, counted.peak) == (0, 4000)


def test_a_fake_of_tied_weights_is_one_and_a_mask_tells_how_much_it_picks() -> None:
    fakes = Fakes()
    meta = nn.Parameter(torch.empty(3, device="meta"))
    assert fakes.of(meta) is fakes.of(meta) is not fakes.of(nn.Parameter(meta.detach()))
    with LiveBytes():
        picked = fakes.empty(4, 2)[torch.tensor([True, False, True, False])]
    assert picked.shape == (2, 2)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["sd35", "wan"])
def test_what_a_phase_needs_is_linear_in_the_rows(family: str) -> None:
    known = forecast(family)
    for rows in (1, 7, 40):
        exact = known.at(rows).phases
        guessed = known.along(rows).phases
        for phase in exact:
            assert guessed[phase] - WORKSPACES == pytest.approx(exact[phase] - WORKSPACES, rel=0.02)
    assert Line.through((2, 30), (4, 50)).at(10) == 110


@pytest.mark.slow
def test_checkpointing_lowers_an_update_and_guidance_doubles_every_forward() -> None:
    plain = transient(forecast(), 8)
    recomputed = transient(forecast("sd35", "train.gradient_checkpointing=true"), 8)
    assert recomputed["update"] < 0.9 * plain["update"]
    assert {**recomputed, "update": 0} == {**plain, "update": 0}
    guided = transient(forecast("sd35", "env.guidance=3"), 8)
    assert 1.8 < guided["window"] / plain["window"] < 2.2
    through = transient(forecast("sd35", "env.guidance=3", "backbone.cfg_grad=true"), 8)
    assert through["update"] >= guided["update"] > 1.5 * plain["update"]
    assert guided["decode"] == plain["decode"]


@pytest.mark.slow
def test_what_trains_brings_its_gradient_two_moments_and_the_values_it_is_compared_with() -> None:
    lora = forecast().held
    whole = forecast("sd35", "train.trainable=full").held
    assert whole.denoiser == 0 and whole.trained == lora.denoiser
    for held in (lora, whole):
        assert (held.gradients, held.optimizer, held.others) == (held.trained, 2 * held.trained, 0)
    for sets, values in [
        (("train.ema=0.9",), 1),
        (("recipe=nft", "train.ema=0", "train.rollout=policy"), 1),
        (("recipe=nft", "train.ema=0.9", "train.rollout=policy"), 2),
        (("recipe=nft", "train.ema=0.9", "train.rollout=ema"), 1),  # which grew the trees
        (("objective.kl=0.1",), 0),  # the model without its fresh LoRA
        (("objective.kl=0.1", "train.trainable=full"), 1),
    ]:
        held = forecast("sd35", *sets).held
        assert held.others == values * held.trained, sets


def test_the_peak_is_that_of_the_phase_that_needs_most() -> None:
    known = forecast()
    held = known.held
    peak = known.at(4)
    moving = transient(known, 4)
    stays = (
        held.denoiser + 3 * held.trained + held.vae + held.conditions + held.latents + WORKSPACES
    )
    assert sum(peak.parts.values()) == stays
    assert peak.phases == {
        "encode": stays + held.text_encoders + known.counts["encode", 0],
        "rollout": stays + held.growing + max(moving["window"], moving["tails"]),
        "decode": stays + moving["decode"],
        "update": stays + held.trained + moving["update"],
        "optimizer step": stays + held.trained,
    }
    assert peak.bytes == max(peak.phases.values()) == peak.phases[peak.phase]
    assert peak.needed == pytest.approx(1.05 * peak.bytes + CONTEXT)
    shared = known.at(4, processes=4)
    assert shared.parts["denoiser"] == held.denoiser / 4
    gathered = shared.phases["rollout"] - sum(shared.parts.values())
    assert gathered == held.growing + max(moving["window"], moving["tails"]) + 2 * held.block


def test_latents_and_text_encoders_count_where_they_are() -> None:
    here = forecast().held
    away = forecast("sd35", "env.latent_device=cpu").held
    prompts = config().train.prompts_per_iteration
    stored = plan_of(config(), algorithm_of(config())).algorithm.trees.stored(10, 1)
    assert here.latents == 4 * prompts * stored * prod(forecast().backbone.shape)
    assert (away.latents, away.growing) == (0, 0)
    stays = forecast("sd35", "backbone.offload_text_encoders=false").at(2)
    waits = forecast().at(2)
    for phase in ("rollout", "decode", "update"):
        assert stays.phases[phase] - waits.phases[phase] == here.text_encoders
    assert stays.phases["encode"] == waits.phases["encode"]


def test_a_tiny_autoencoder_is_counted_without_its_files() -> None:
    plain = forecast().held
    tiny = forecast("sd35", "backbone.tiny_vae=nobody/nothing").held
    assert tiny.vae != plain.vae and tiny.denoiser == plain.denoiser


def test_a_model_of_ones_own_is_not_known_before_it_is_loaded() -> None:
    file = Path(__file__).parent / "plain_torch.py"
    flags = {"backbone.name": f"{file}:Points", "rewards": {"jpeg": 1.0}}
    assert Forecast.of(resolve(None, flags, [], allow_plugins=True)) is None
