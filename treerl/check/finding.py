"""What a check of the conformance kit says, and the running of checks one after another."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from treerl.errors import Stopped, TreerlError, printable, reason

Statement = Callable[[Any], tuple[bool, str]]  # of a subject: whether it holds, and what came
Outcome = Literal["ok", "WRONG", "skipped"]


class Skip(Exception):
    """Raised by a check that does not apply, or cannot be tried, and why."""


@dataclass(frozen=True)
class Finding:
    """One statement about a plug-in: whether it holds, with the figure that says so."""

    name: str
    outcome: Outcome
    came: str
    expected: str = ""
    mend: str = ""  # what to look at when it does not hold

    @property
    def wrong(self) -> bool:
        """Whether the statement does not hold."""
        return self.outcome == "WRONG"

    def lines(self) -> list[str]:
        """As the command line prints it."""
        first = f"{self.outcome:<7} {self.name}: {self.came}"
        if not self.wrong:
            return [first]
        return [first, f"        expected: {self.expected}", f"        to mend:  {self.mend}"]


@dataclass(frozen=True)
class Check:
    """A statement that is checked."""

    name: str
    expected: str
    mend: str
    statement: Statement
    vital: bool  # without it, nothing more can be learned


def check(mend: str, vital: bool = False) -> Callable[[Statement], Check]:
    """Makes a check of a function whose docstring is the statement."""

    def decorate(statement: Statement) -> Check:
        assert statement.__doc__ is not None
        name: str = statement.__name__
        return Check(name.replace("_", " "), statement.__doc__, mend, statement, vital)

    return decorate


def run(checks: Sequence[Check], subject: Any) -> Iterator[Finding]:
    """Every finding in turn; what the plug-in's own code breaks off is a finding too.

    After a vital statement that does not hold the rest is skipped: it would only say it again.
    """
    for number, item in enumerate(checks):
        finding = _finding(item, subject)
        yield finding
        if item.vital and finding.wrong:
            rest = len(checks) - number - 1
            if rest:
                yield Finding(f"{rest} more", "skipped", f"they need {item.name}")
            return


def _finding(item: Check, subject: Any) -> Finding:
    try:
        holds, came = item.statement(subject)
    except Skip as skip:
        return Finding(item.name, "skipped", str(skip))
    except (KeyboardInterrupt, Stopped):
        raise
    except TreerlError as error:
        holds = False
        came = printable(error)
    except BaseException as error:  # SystemExit, too: a plug-in does not decide how a check ends
        holds = False
        came = reason(error)
    return Finding(item.name, "ok" if holds else "WRONG", came, item.expected, item.mend)
