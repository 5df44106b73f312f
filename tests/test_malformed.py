"""Every malformed run file is refused by one of treerl's own errors, which names what is wrong."""

from pathlib import Path

from malformed import Case, cases

from treerl.config.resolve import resolve
from treerl.errors import InputError


def fault(case: Case, file: Path) -> str | None:
    """What is wrong with how a file was refused; None where nothing is."""
    file.write_text(case.text, encoding="utf-8")
    try:
        resolve(file, {}, [])
    except InputError as error:
        said = str(error)
        named = error.code == 2 and file.name in said and case.path in said
        return None if named else f"code {error.code}: {said}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "accepted"


def test_each_of_a_thousand_malformed_files_is_refused_with_file_and_path(tmp_path: Path) -> None:
    every = list(cases())
    assert len(every) > 1000
    faults = [(case, fault(case, tmp_path / "malformed.yaml")) for case in every]
    assert [(case, wrong) for case, wrong in faults if wrong is not None] == []
