"""Miniatures whose memory is counted on fakes, one for each set of settings."""

from functools import cache

from treerl.config.resolve import resolve
from treerl.config.schema import Config
from treerl.run.forecast import Forecast
from treerl.run.quiet import quiet

# so large that work needs more than encoding, and few latents
LARGE = ("backbone.height=128", "backbone.width=128", "train.prompts_per_iteration=1")


def config(family: str = "sd35", *sets: str) -> Config:
    flags = {"backbone.name": family, "backbone.model": "miniature", "rewards": {"jpeg": 1.0}}
    # what presets set otherwise
    usual = ["env.guidance=1", "train.gradient_checkpointing=false", "env.latent_device=device"]
    return resolve(None, flags, [*usual, "backbone.device=cpu", *sets])


@cache
def forecast(family: str = "sd35", *sets: str) -> Forecast:
    quiet()
    found = Forecast.of(config(family, *sets))
    assert found is not None
    return found
