"""The rows that fit into a card, and what is advised where none do."""

import pytest
from forecasts import LARGE, forecast

from treerl.run.fit import changed, fit
from treerl.run.forecast import Forecast


@pytest.mark.slow
@pytest.mark.parametrize("rows", [1, 2, 5, 30])
def test_the_rows_that_fit_are_the_most_that_do(rows: int) -> None:
    known = forecast("sd35", *LARGE)
    size = max(known.along(rows).needed, known.at(rows).needed)
    found = fit(known, size)
    assert found.rows == rows
    assert known.along(rows).needed <= size < known.along(rows + 1).needed
    assert found.binding == known.along(rows + 1).phase
    assert fit(known, size - 1).rows == rows - 1


@pytest.mark.slow
def test_what_is_advised_where_no_row_fits_is_sorted_and_true() -> None:
    sets = ("backbone.offload_text_encoders=false", "train.trainable=full", "env.guidance=3")
    known = forecast("sd35", *LARGE, *sets)
    size = known.at(1).needed - 400_000
    found = fit(known, size)
    assert found.rows == 0 and found.binding == "update"
    needed = [peak.needed for _, peak in found.advice]
    assert needed == sorted(needed) and needed[-1] < known.at(1).needed
    texts = {change.text(): (change, peak) for change, peak in found.advice}
    assert {
        "train.gradient_checkpointing=true",
        "train.trainable=lora",
        "env.latent_device=cpu",
        "backbone.offload_text_encoders=true",
        "env.guidance=1",
        "parallel.shard=true --devices 4",
    } <= set(texts)
    for change, peak in texts.values():
        if change.processes == 1:
            other = Forecast.of(changed(known.config, change.settings))
            assert other is not None
            assert other.at(1).phases == pytest.approx(peak.phases, rel=1e-4), change.text()
    for told in found.plain()["advice"]:
        assert told["fits"] == (told["needed_bytes"] <= size)
    assert {told["fits"] for told in found.plain()["advice"]} == {True, False}


@pytest.mark.slow
def test_a_decode_that_binds_is_told_to_decode_in_parts() -> None:
    known = forecast("wan", *LARGE, "backbone.frames=17")
    found = fit(known, 1)
    assert found.binding == "decode"
    texts = [change.text() for change, _ in found.advice]
    assert not any("checkpointing" in text or "tiny_vae" in text for text in texts)
    assert "backbone.height=64 backbone.width=64 backbone.frames=9" in texts
