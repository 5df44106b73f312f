"""Tensors of a checkpoint that lie in parts come back whole, one at a time, or not at all."""

from pathlib import Path

import pytest
import torch

from treerl.errors import StorageError
from treerl.run.stored import Stored, refuse_missing, write_part, write_whole


@pytest.mark.parametrize(("rows", "size"), [(5, 2), (1, 3), (6, 3), (0, 2)])
def test_parts_of_any_length_are_the_whole(rows: int, size: int, tmp_path: Path) -> None:
    whole = torch.arange(rows * 4.0).view(rows, 4)
    pieces = list(whole.chunk(size)) if rows else [whole]
    pieces += [whole[:0]] * (size - len(pieces))
    write_whole(tmp_path, {"step": torch.tensor(3.0), "weights/w": whole})
    for rank in reversed(range(size)):  # they come in any order
        write_part(tmp_path, {"optimizer/w/exp_avg": pieces[rank]}, rank, size)
    stored = Stored(tmp_path)
    assert set(stored) == {"step", "weights/w", "optimizer/w/exp_avg"} and len(stored) == 3
    assert torch.equal(stored["optimizer/w/exp_avg"], whole)
    assert stored["step"] == 3


def test_a_missing_part_is_refused(tmp_path: Path) -> None:
    write_whole(tmp_path, {})
    for rank in (0, 2):
        write_part(tmp_path, {"m": torch.ones(2)}, rank, 3)
    with pytest.raises(StorageError, match=r"expected the parts of 3 processes, got \[0, 2\]"):
        Stored(tmp_path)


def test_parts_of_two_savings_are_refused(tmp_path: Path) -> None:
    write_whole(tmp_path, {})
    write_part(tmp_path, {"m": torch.ones(2)}, 0, 1)
    write_part(tmp_path, {"m": torch.ones(2)}, 1, 2)
    with pytest.raises(StorageError, match="expected the parts of"):
        Stored(tmp_path)


def test_a_file_that_holds_no_tensors_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tensors.safetensors").write_bytes(b"nothing")
    with pytest.raises(StorageError, match=r"tensors\.safetensors: "):
        Stored(tmp_path)


def test_a_process_that_does_not_see_the_folder_says_so(tmp_path: Path) -> None:
    """It would make one of its own, on its own machine."""
    with pytest.raises(StorageError, match="which all processes must see"):
        write_part(tmp_path / "elsewhere", {"m": torch.ones(2)}, 1, 2)
    assert not (tmp_path / "elsewhere").exists()


def test_a_checkpoint_is_not_published_without_a_part(tmp_path: Path) -> None:
    write_part(tmp_path, {"m": torch.ones(2)}, 0, 2)
    for size in (1, 2):
        with pytest.raises(StorageError, match="expected the parts of"):
            refuse_missing(tmp_path, size)
    write_part(tmp_path, {"m": torch.ones(2)}, 1, 2)
    refuse_missing(tmp_path, 2)
