"""Several processes train as one does: the same trees, and gradients within their rounding."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from several import ALGORITHMS, alone, begins, together
from several_faults import faults
from torch import Tensor

Told = dict[str, list[dict[str, Tensor]]]
_NAMES = (*ALGORITHMS, "lora")
# counts are exact over ranks; these are sums in another order, or follow from such gradients
_ROUNDED = {"loss", "grad_norm"}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def one() -> dict[str, dict[str, Tensor]]:
    return {name: alone(name) for name in _NAMES}


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Told:
    return together(_NAMES, 2, tmp_path_factory.mktemp("two") / "ranks")


@pytest.fixture(scope="module")
def again(tmp_path_factory: pytest.TempPathFactory) -> Told:
    return together(_NAMES, 2, tmp_path_factory.mktemp("again") / "ranks")


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Told:
    return together(tuple(ALGORITHMS), 3, tmp_path_factory.mktemp("three") / "ranks")


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Told:
    return together(("uneven", "edges"), 4, tmp_path_factory.mktemp("four") / "ranks")


def same(one: Tensor, other: Tensor) -> bool:
    return torch.equal(one, other) or torch.allclose(one, other, 0, 0, equal_nan=True)


def agree(one: dict[str, Tensor], ranks: list[dict[str, Tensor]]) -> None:
    """Everything of the first iteration is exact; what gradients moved is within 1e-6."""
    latents = torch.cat([told["latents"] for told in ranks])
    place = torch.cat([told["here"] for told in ranks])
    assert torch.equal(place, one["here"]) and torch.equal(latents, one["latents"])
    for told in ranks:
        for name, tensor in begins(one, "tree.").items():
            assert same(tensor, told[name]), name
        for name, tensor in begins(one, "metric.0.").items():
            if name.removeprefix("metric.0.") not in _ROUNDED:
                assert same(tensor, told[name]), name
        for name, tensor in begins(one, "metric.").items():
            assert told[name].item() == pytest.approx(tensor.item(), rel=1e-4, abs=1e-7), name
        first = list(begins(one, "gradient."))[: len(begins(one, "gradient.")) // 4]
        for name in first:  # those of the first optimizer step, from equal weights
            off = (told[name] - one[name]).norm() / one[name].norm().clamp(min=1e-12)
            assert float(off) <= 1e-6, name
        for name, tensor in begins(one, "weight.").items():
            torch.testing.assert_close(told[name], tensor, rtol=2e-6, atol=2e-7)


def identical(one: dict[str, Tensor], other: dict[str, Tensor], *but: str) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert name.startswith(but) or same(tensor, other[name]), name


@pytest.mark.slow
@pytest.mark.parametrize("name", _NAMES)
def test_two_processes_train_as_one(
    name: str, one: dict[str, dict[str, Tensor]], two: Told
) -> None:
    agree(one[name], two[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", list(ALGORITHMS))
def test_three_processes_train_as_one(
    name: str, one: dict[str, dict[str, Tensor]], three: Told
) -> None:
    agree(one[name], three[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["uneven", "edges"])
def test_four_processes_train_as_one(
    name: str, one: dict[str, dict[str, Tensor]], four: Told
) -> None:
    agree(one[name], four[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", _NAMES)
def test_all_processes_see_the_same(name: str, two: Told) -> None:
    first, second = two[name]
    identical(first, second, "here", "latents", "shown.")


@pytest.mark.slow
@pytest.mark.parametrize("name", _NAMES)
def test_the_same_number_of_processes_does_the_same_again(
    name: str, two: Told, again: Told
) -> None:
    for before, after in zip(two[name], again[name], strict=True):
        identical(before, after)


@pytest.mark.slow
def test_the_scenarios_are_what_they_are_for(one: dict[str, dict[str, Tensor]], two: Told) -> None:
    dropped = int(one["dropped"]["metric.0.dropped_trees"])
    assert 0 < dropped < 6
    assert [len(told["here"]) for told in two["idle"]] == [0, 8]
    assert [len(told["here"]) for told in two["uneven"]] == [8, 16]
    assert "gradient.0" in one["idle"] and float(one["idle"]["gradient.0"].abs().max()) > 0


@pytest.mark.slow
def test_an_evaluation_is_that_of_one_process(one: dict[str, dict[str, Tensor]], two: Told) -> None:
    whole = one["lora"]
    for told in two["lora"]:
        for name, tensor in begins(whole, "before.").items():
            assert same(tensor, told[name]), name
        for name, tensor in begins(whole, "after.").items():
            torch.testing.assert_close(told[name], tensor, rtol=1e-4, atol=1e-5)
    # rank 0 draws the two samples of two tasks, and gets one of each other task to show
    assert [int(told["shown.before"]) for told in two["lora"]] == [4 + 3, 6]


def test_what_is_wrong_in_one_process_is_known_to_both(tmp_path: Path) -> None:
    first, second = faults(tmp_path / "ranks")
    assert first["input"] == second["input"] == "InputError 2: data.train: expected a file"
    drift = "PeerError 5: iteration 3: the weights of rank 1 differ from those of rank 0"
    assert first["drift"] == second["drift"] == drift
    gradient = "NumericsError 3: update: iteration 1: the gradient is not finite; nothing moved"
    assert first["gradient"] == second["gradient"] == gradient
    assert first["stop"] == second["stop"] == "TreerlError 1: stopped by signal 15 at call 3"
    assert first["lost"] == "PeerError 5: rank 1: reward near: it failed"
    assert second["lost"] == "RewardError 6: reward near: it failed"
