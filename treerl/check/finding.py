"""What a check of the conformance kit says, and the running of checks one after another."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from treerl.errors import TreerlError

Look = Callable[
    [Any], tuple[bool, str]
]  # at a plug-in: whether the statement holds, and what was found


@dataclass(frozen=True)
class Finding:
    """One statement about a plug-in: whether it holds, with the figure that says so."""

    name: str
    good: bool
    found: str
    expected: str
    mend: str  # what to look at when it does not hold

    def lines(self) -> list[str]:
        """As the command line prints it."""
        if self.good:
            return [f"ok    {self.name}: {self.found}"]
        return [
            f"WRONG {self.name}: {self.found}",
            f"      expected: {self.expected}",
            f"      to mend:  {self.mend}",
        ]


@dataclass(frozen=True)
class Check:
    """A statement that is checked."""

    name: str
    expected: str
    mend: str
    look: Look


def check(mend: str) -> Callable[[Look], Check]:
    """Makes a check of a function whose docstring is the statement."""

    def made(look: Look) -> Check:
        assert look.__doc__ is not None
        name: str = look.__name__
        return Check(name.replace("_", " "), look.__doc__, mend, look)

    return made


def run(checks: Sequence[Check], subject: Any) -> Iterator[Finding]:
    """Every finding in turn; a check that the plug-in's own code breaks off is a finding too."""
    for one in checks:
        try:
            good, found = one.look(subject)
        except TreerlError as error:
            good, found = False, str(error)
        except Exception as error:
            good, found = False, f"{type(error).__name__}: {error}"
        yield Finding(one.name, good, found, one.expected, one.mend)
