"""Bad configurations are refused by dotted path and source, all of them at once."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from treerl.config.paths import FIELDS, PLUGINS, SECTIONS
from treerl.config.resolve import resolve
from treerl.config.schema import Config
from treerl.config.section import properties
from treerl.errors import InputError, describe

_DATA = Path(__file__).parent / "data"
_WRITTEN = yaml.safe_load((_DATA / "bad_configs.yaml").read_text("utf-8"))
_IMPOSSIBLE = yaml.safe_load((_DATA / "impossible_configs.yaml").read_text("utf-8"))

# values that are no plug-in and no mapping of rewards
_NO_PLUGIN = ["1", "null", "1.5", "true", "[]", "{name: 1}", "{name: [x]}", "nothing", "''"]
_NO_REWARDS = {
    "rewards": ["1", "null", "x", "[]", "true", "{}", "{shapes: null}", "{shapes: [1]}"],
    "watch": ["1", "null", "x", "true", "[1]", "[shapez]", "[null]", "['']", "{jpeg: 1}"],
}

# values that no field of the kind accepts, as they stand in YAML, by how its description begins
_WRONG = {
    "an integer": [
        "1.5",
        "10.0",
        "'3'",
        "true",
        "x",
        "-1",
        ".nan",
        "1e3",
        "08",
        "[3]",
        "{}",
        "9" * 5000,
        "0x10",
    ],
    "a number": [
        "x",
        "true",
        ".nan",
        ".inf",
        "-.inf",
        "nan",
        "inf",
        "1e999",
        "-1",
        "[1.0]",
        "{}",
        "0x10",
        "1_000",
    ],
    "a list of": ["1", "x", "true", "null", "{}", "[x]", "[0]", "[1.5]", "[true]", "[-1]", "['2']"],
    "true or false": ["yes", "no", "on", "1", "0", "'true'", "null", "[]", "1.0"],
    "one of": ["x", "1", "true", "null", "[]", "{}", "''", "1.5"],
    "a text": [
        "1",
        "1.5",
        "true",
        "[]",
        "{}",
        "''",
        r'"a\nb"',
        r'"\0"',
        r'"\ud800"',
        "[x]",
        "'" + "x" * 5000 + "'",
    ],
    "process, worker": ["1", "true", "[]", "{}", "''", "workers", "http:/x", "ftp://x"],
}


def _wrong(path: str) -> list[str]:
    section, _, key = path.rpartition(".")
    words = describe(properties(SECTIONS.get(section, Config))[key])
    values = next(values for start, values in _WRONG.items() if words.startswith(start))
    return values if words.endswith("or null") or "null" in values else [*values, "null"]


def _typo(path: str) -> str:
    section, dot, key = path.rpartition(".")
    return f"{section}{dot}{key[0]}{key}"


_PLAIN = [path for path in FIELDS if path not in _NO_REWARDS]
_GENERATED = [(path, value) for path in _PLAIN for value in _wrong(path)]
_TYPOS = [_typo(path) for path in [*FIELDS, *SECTIONS] if path.rpartition(".")[0] not in PLUGINS]


def _message(action: Callable[[], object]) -> list[str]:
    with pytest.raises(InputError) as caught:
        action()
    assert caught.value.code == 2
    return str(caught.value).splitlines()


def _run_file(folder: Path, text: str | bytes) -> Path:
    path = folder / "run.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_the_corpus_is_large_enough() -> None:
    assert len(_WRITTEN) + len(_IMPOSSIBLE) + len(_GENERATED) + len(_TYPOS) >= 250


@pytest.mark.parametrize(
    "case", [*_WRITTEN, *_IMPOSSIBLE], ids=lambda case: repr(case.get("file", case.get("set")))[:60]
)
def test_refuses_by_path(
    case: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = Path(_run_file(tmp_path, case["file"]).name) if "file" in case else None
    flags = {} if file else {"recipe": "treegrpo"}  # whose trees the cases start from
    lines = _message(lambda: resolve(file, flags, case.get("set", [])))
    assert all(any(words in line for line in lines) for words in case["says"]), lines


def test_a_misspelt_setting_is_not_reported_as_a_conflict_too() -> None:
    (line,) = _message(lambda: resolve(None, {}, ["tree.branching.depth=10", "tree.brnch=1"]))
    assert "tree.brnch" in line


@pytest.mark.parametrize("path", _PLAIN)
def test_refuses_wrong_values_of_every_field(path: str, tmp_path: Path) -> None:
    *sections, key = path.split(".")
    for value in _wrong(path):
        (line,) = _message(lambda: resolve(None, {}, [f"{path}={value}"]))  # noqa: B023
        assert line.startswith(f"--set: {path}"), line
        heads = "".join(f"{'  ' * depth}{name}:\n" for depth, name in enumerate(sections))
        file = _run_file(tmp_path, f"{heads}{'  ' * len(sections)}{key}: {value}\n")
        (line,) = _message(lambda: resolve(file, {}, []))  # noqa: B023
        assert line.startswith(f"{file}:{len(sections) + 1}: {path}"), line
        assert "expected " in line or "unknown name" in line


@pytest.mark.parametrize("path", list(PLUGINS))
def test_refuses_what_is_no_plug_in(path: str) -> None:
    for value in _NO_PLUGIN:
        (line,) = _message(lambda: resolve(None, {}, [f"{path}={value}"]))  # noqa: B023
        assert line.startswith(f"--set: {path}"), line
        assert "expected " in line or "unknown name" in line


@pytest.mark.parametrize("path", sorted(_NO_REWARDS))
def test_refuses_what_is_no_mapping_of_rewards(path: str) -> None:
    for value in _NO_REWARDS[path]:
        (line,) = _message(lambda: resolve(None, {}, [f"{path}={value}"]))  # noqa: B023
        assert line.startswith(f"--set: {path}"), line
        assert any(words in line for words in ("expected ", "unknown name", "unknown key"))


@pytest.mark.parametrize("typo", _TYPOS)
def test_refuses_a_typo_of_every_key(typo: str) -> None:
    (line,) = _message(lambda: resolve(None, {}, [f"{typo}=1"]))
    assert line.startswith(f"--set: {typo}: unknown key; did you mean "), line


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"\x00\x01\x02\xff" * 40, ":1: byte "),
        (b"seed: 1\noutput: caf\xe9\n", ":2: byte 19: expected UTF-8, got 0xe9"),
        ("seed: 1\n".encode("utf-16"), ":1: byte 0: expected UTF-8, got UTF-16"),
        ("seed: 1\n".encode("utf-16-le"), ":1: byte 1: expected UTF-8, got UTF-16"),
        (b"seed: 1\noutput: a\x00b\n", ":2: character 0x0 is not allowed"),
        (b"seed: 1\n" + b"#" * 1_000_000, ": expected at most 1000000 bytes"),
        (b"rewards: [" + b"a," * 20_000 + b"a]", ":1: more than 10000 values"),
        (b"[" * 500_000, ":1: nested more than 20 deep"),
        (b"a: &a [x,x]\nb: &b [*a,*a]\nc: [*b,*b]\n", ":1: aliases and anchors are not allowed"),
    ],
)
def test_refuses_hostile_files(data: bytes, says: str, tmp_path: Path) -> None:
    file = _run_file(tmp_path, data)
    (line,) = _message(lambda: resolve(file, {}, []))
    assert line.startswith(f"{file}{says}")


def test_refuses_files_that_cannot_be_read(tmp_path: Path) -> None:
    assert _message(lambda: resolve(tmp_path / "none.yaml", {}, [])) == [
        f"{tmp_path}/none.yaml: no such file"
    ]
    assert "got a folder" in _message(lambda: resolve(tmp_path, {}, []))[0]
    assert "regular file" in _message(lambda: resolve(Path("/dev/zero"), {}, []))[0]
    assert "cannot be read" in _message(lambda: resolve(Path("a\0b"), {}, []))[0]


def test_reports_everything_at_once(tmp_path: Path) -> None:
    file = _run_file(tmp_path, "seed: -1\ntrain:\n  learning_rate: -1\n  thread: 3\n")
    lines = _message(
        lambda: resolve(
            file, {"backbone.name": "nope", "rewards": {"x": 1.0}}, ["tree.previews", "a=1"]
        )
    )
    starts = {
        "--set: expected dotted.path=value, got 'tree.previews'",
        "--set: a: unknown key",
        f"{file}:4: train.thread: unknown key; did you mean train.threads?",
        f"{file}:1: seed: expected an integer",
        f"{file}:3: train.learning_rate: expected a number >= 0, got -1",
        "--backbone: backbone.name: unknown name 'nope'",
        "--reward: rewards.x: unknown name 'x'",
    }
    assert len(lines) == len(starts)
    assert all(any(line.startswith(start) for line in lines) for start in starts), lines


def test_a_bad_configuration_is_refused_before_anything_heavy_is_imported() -> None:
    code = (
        "import sys, treerl.config.resolve as loading, treerl.errors as errors\n"
        "try: loading.resolve(None, {}, ['tree.brnch=1'])\n"
        "except errors.InputError: pass\n"
        "slow = {'torch', 'diffusers', 'transformers', 'numpy', 'PIL'}\n"
        "heavy = slow & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
