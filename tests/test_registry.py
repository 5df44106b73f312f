"""Plug-ins by name: parameters are the fields of their dataclass, and every mistake is one line."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from treerl import registry
from treerl.engine.kernel import CPS
from treerl.errors import InputError, ParameterError

_HEAD = """
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal
from annotated_types import Ge, Le
import treerl

@dataclass(frozen=True)
class Mine(treerl.Kernel):
"""
_BODY = """
    def coefficients(self, schedule):
        return treerl.ODE().coefficients(schedule)
"""


def _plugin(folder: Path, fields: str, name: str = "mine.py") -> str:
    lines = "".join(f"    {line}\n" for line in fields.splitlines())
    (folder / name).write_text(_HEAD + lines + _BODY)
    return f"{folder}/{name}:Mine"


def _message(name: str, **params: Any) -> str:
    with pytest.raises(InputError) as caught:
        registry.build("kernels", name, params, "kernel")
    assert caught.value.code == 2
    return str(caught.value)


@pytest.mark.parametrize("kind", registry.CONTRACTS)
def test_every_announced_plug_in_has_parameters_that_are_data(kind: str) -> None:
    for name in registry.announced(kind):
        holder = registry.parameters(kind, name)
        for field in registry.fields(holder) if kind != "envs" else ():
            assert registry.words(holder, field) and "type" not in registry.words(holder, field)


def test_a_plug_in_is_built_from_its_parameters() -> None:
    assert registry.build("kernels", "cps", {"noise_level": "5e-1"}) == CPS(0.5)
    assert registry.build("kernels", "cps", {"noise_level": 1}) == CPS(1.0)
    assert registry.complete("kernels", "cps", {}) == {"noise_level": 0.8}


_TYPES = """
count: Annotated[int, Ge(1), Le(9)] = 3
flag: bool = False
mode: Literal["a", "b"] = "a"
pair: tuple[int, ...] = (1, 2)
file: Path | None = None
text: str = ""
hidden: int = field(default=7, init=False)
"""


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ({"count": True}, "kernel.count: expected an integer >= 1 and <= 9, got true"),
        ({"count": "3"}, "kernel.count: expected an integer >= 1 and <= 9, got '3'"),
        ({"count": 3.0}, "kernel.count: expected an integer >= 1 and <= 9, got 3.0"),
        ({"count": 10}, "kernel.count: expected an integer >= 1 and <= 9, got 10"),
        ({"flag": 1}, "kernel.flag: expected true or false, got 1"),
        ({"mode": "c"}, "kernel.mode: expected one of a, b, got 'c'"),
        ({"pair": [1, "x"]}, "kernel.pair: expected a list, got a list"),
        ({"text": 3}, "kernel.text: expected a text, got 3"),
        ({"text": "a\0"}, "kernel.text: expected a text, got 'a\\x00'"),
        ({"text": object}, "kernel.text: expected a text, got "),
        ({"cuont": 3}, "kernel.cuont: unknown key; did you mean kernel.count?"),
        ({"hidden": 3}, "kernel.hidden: unknown key; known: "),
    ],
)
def test_parameters_are_strict(params: dict[str, Any], says: str, tmp_path: Path) -> None:
    message = _message(_plugin(tmp_path, _TYPES), **params)
    assert message.startswith(says) and "\n" not in message


def test_lists_are_tuples_and_texts_are_paths(tmp_path: Path) -> None:
    name = _plugin(tmp_path, _TYPES)
    params = {"pair": [3, 4], "file": "a/b", "text": "two\nlines"}
    plugin = registry.build("kernels", name, params)
    assert (plugin.pair, plugin.file, plugin.text) == ((3, 4), Path("a/b"), "two\nlines")
    assert registry.complete("kernels", name, params)["pair"] == [3, 4]


def test_a_parameter_without_a_default_is_asked_for(tmp_path: Path) -> None:
    name = _plugin(tmp_path, "size: int")
    assert _message(name) == "kernel.size: expected an integer, as it has no default"
    assert registry.build("kernels", name, {"size": 2}).size == 2


def test_a_rule_of_the_plug_in_is_one_line_at_its_path(tmp_path: Path) -> None:
    rule = "size: int = 1\ndef __post_init__(self):\n    raise {}"
    for number, (error, says) in enumerate(
        [
            ('ValueError("expected an odd size")', "kernel: expected an odd size"),
            ('RuntimeError("a\\nb")', "kernel: Mine raised RuntimeError: a b"),
            ("SystemExit(3)", "kernel: Mine raised SystemExit: 3"),
            ("GeneratorExit", "kernel: Mine raised GeneratorExit"),
        ]
    ):
        assert _message(_plugin(tmp_path, rule.format(error), f"rule{number}.py")) == says


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ParameterError) as caught:
        registry.build("kernels", _plugin(tmp_path, _TYPES), {"count": 0, "flag": 0, "x": 1})
    assert len(caught.value.problems) == len(str(caught.value).splitlines()) == 3


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (None, "no such plug-in file: "),
        ("", "has no class 'Mine'"),
        ("Mine = 3", "expected a subclass of treerl.engine.kernel:Kernel, got 3"),
        ("class Mine: pass", "expected a subclass of treerl.engine.kernel:Kernel, got "),
        ("import nowhere", "ModuleNotFoundError: No module named 'nowhere'"),
        ("raise SystemExit(0)", "cannot be imported: SystemExit"),
        ("raise GeneratorExit", "cannot be imported: GeneratorExit"),
        ("raise RuntimeError('\\x1b[2J')", "cannot be imported: RuntimeError: \\x1b[2J"),
        ("def f(:", "cannot be imported: SyntaxError"),
        ("\0", "cannot be imported: "),
    ],
)
def test_a_bad_file_is_one_line(code: str | None, says: str, tmp_path: Path) -> None:
    if code is not None:
        (tmp_path / "bad.py").write_text(code)
    message = _message(f"{tmp_path}/bad.py:Mine")
    assert says in message and message.isprintable()


def test_a_folder_a_file_without_a_class_and_an_unknown_name_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "folder.py").mkdir()
    assert "no such plug-in file" in _message(f"{tmp_path}/folder.py:Mine")
    assert "expected FILE.py:CLASS or module:CLASS" in _message("./rank.py")
    assert "expected FILE.py:CLASS or module:CLASS" in _message(":Mine")
    assert _message("csp").startswith("kernels: unknown name 'csp'; did you mean cps?")
    assert "No module named 'nowhere'" in _message("nowhere.deep:Mine")


def test_a_plug_in_may_import_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "the_neighbour.py").write_text("SIZE = 5\n")
    (tmp_path / "mine.py").write_text(
        f"from the_neighbour import SIZE\n{_HEAD}    size: int = SIZE\n{_BODY}"
    )
    assert registry.build("kernels", f"{tmp_path}/mine.py:Mine", {}).size == 5
    assert sys.path[0] != str(tmp_path)  # it hides nothing that is installed


def test_another_file_of_the_same_name_is_another_plug_in(tmp_path: Path) -> None:
    sizes = []
    for number in (1, 2):
        (tmp_path / str(number)).mkdir()
        name = _plugin(tmp_path / str(number), f"size: int = {number}")
        sizes.append(registry.build("kernels", name, {}).size)
    assert sizes == [1, 2]


@pytest.mark.slow
def test_a_checkout_finds_its_shelves_where_the_package_is_installed_elsewhere() -> None:
    # as after `pip install .` in a clone: Python finds the clone's own folder first
    code = (
        "import sys\n"
        "sys.meta_path = [one for one in sys.meta_path if 'ditable' not in repr(one)]\n"
        "import treerl.registry\n"
        "print(treerl.registry.load('envs', 'denoising').__module__)\n"
    )
    root = Path(__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=120
    )
    assert done.stdout == "treerl.envs.denoising\n", done.stderr
