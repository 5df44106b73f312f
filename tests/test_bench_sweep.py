"""A sweep that cannot be read is refused under the name of its option."""

import pytest

from treerl.bench.sweep import parse
from treerl.errors import InputError


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("foo", "--sweep: expected dotted.path=value,value or a file, got 'foo'"),
        ("train.decay=", "--sweep: train.decay: expected texts between commas, got ''"),
        ("train.decay=none,", "--sweep: train.decay: expected texts between commas, got 'none,'"),
    ],
)
def test_what_is_no_sweep_is_refused(text: str, said: str) -> None:
    with pytest.raises(InputError) as error:
        parse([text])
    assert str(error.value) == said
