"""The setting `tree.granularities`: what it takes, what it refuses, and how it is written."""

import pytest
import yaml

from treerl.config.resolve import dump, resolve
from treerl.errors import InputError

WORD = "a list of 0 to 8 whole numbers from 1 to 1000"
WRONG = {
    "[0]": "a list",
    "[2, 1001]": "a list",
    "[2.5]": "a list",
    "[true]": "a list",
    "['2']": "a list",
    "[1, 1, 1, 1, 1, 1, 1, 1, 1]": "a list",
    "2": "2",
    "many": "'many'",
    "{2: 3}": "a mapping",
}


@pytest.mark.parametrize(("text", "got"), WRONG.items())
def test_what_is_no_list_of_strides_is_refused(text: str, got: str) -> None:
    with pytest.raises(InputError) as error:
        resolve(None, {}, [f"tree.granularities={text}"])
    assert str(error.value) == f"--set: tree.granularities: expected {WORD}, got {got}"


def test_a_recipe_with_strides_is_written_and_read_again() -> None:
    config = resolve(None, {}, ["recipe=g2rpo"])
    assert config.tree.granularities == (2, 3)
    assert yaml.safe_load(dump(config))["tree"]["granularities"] == [2, 3]
    assert resolve(None, {}, ["tree.granularities=[3]"]).tree.granularities == (3,)


def test_samples_of_an_iteration_are_limited_with_all_that_is_finished() -> None:
    sets = ["train.prompts_per_iteration=70000", "tree.branching.depth=2"]
    assert resolve(None, {}, sets).tree.granularities == ()
    with pytest.raises(InputError, match="at most 1000000 samples an iteration, got 1120000"):
        resolve(None, {}, [*sets, "tree.granularities=[1, 2, 3]"])
