"""Prompt files of every kind and condition: read as they are meant, or refused by their line."""

import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from treerl.engine.task import Task
from treerl.errors import InputError
from treerl.run import tasks as prompts

_READ = [
    ("a.txt", b"a cat\na dog\n", ["a cat", "a dog"]),
    ("a.txt", b"\xef\xbb\xbfa cat\r\n\r\na dog", ["a cat", "a dog"]),
    ("a.txt", b"\n  a cat  \t\n \t \n\n", ["a cat"]),
    ("a.txt", b"a cat\na cat\n", ["a cat", "a cat"]),
    ("A.TXT", "ein Bär \U0001f600, 猫\n".encode(), ["ein Bär \U0001f600, 猫"]),
    ("a.txt", "one\u2028line\n".encode(), ["one\u2028line"]),
    (
        "a.jsonl",
        b'{"prompt": "a cat", "id": 1}\n\n{"prompt": "a \\u00e9"}\r\n',
        ["a cat", "a \u00e9"],
    ),
    ("a.jsonl", b'\xef\xbb\xbf{"prompt": "a"}\n{"prompt": " "}\n', ["a"]),
    ("a.csv", b'id,prompt\n1,a cat\n2,"a, b ""c"""\n', ["a cat", 'a, b "c"']),
    ("a.csv", b"\xef\xbb\xbf prompt \r\na cat\r\n\r\n", ["a cat"]),
]

_REFUSED = [
    ("a.txt", b"", ": expected at least one prompt"),
    ("a.txt", b"\n \n\t\n", ": expected at least one prompt"),
    ("a.txt", b"a\ncaf\xe9\n", ":2: byte 5: expected UTF-8, got 0xe9"),
    ("a.txt", b"\xef\xbb\xbfcaf\xe9\n", ":1: byte 6: expected UTF-8, got 0xe9"),
    ("a.txt", "a cat\n".encode("utf-16"), ":1: byte 0: expected UTF-8, got UTF-16"),
    (
        "a.txt",
        b"\xfe\xff" + "a cat\n".encode("utf-16-be"),
        ":1: byte 0: expected UTF-8, got UTF-16",
    ),
    (
        "a.txt",
        "a cat\n".encode("utf-16-le"),
        ":1: byte 1: expected UTF-8, got UTF-16 without its mark",
    ),
    (
        "a.txt",
        "a cat\n".encode("utf-16-be"),
        ":1: byte 0: expected UTF-8, got UTF-16 without its mark",
    ),
    ("a.txt", "a cat\n".encode("utf-32"), ":1: byte 0: expected UTF-8, got UTF-32"),
    ("a.txt", b"a\nb\x00c\n", ":2: expected no control characters, got U+0000"),
    ("a.txt", b"a\nb\x1b[2J\n", ":2: expected no control characters, got U+001B"),
    ("a.txt", b"a\rb\r", ":1: expected no control characters, got U+000D"),
    ("a.txt", b"a\nb\tc\n", ":2: expected no control characters, got U+0009"),
    ("a.txt", b"a\n\xc2\x85\n", ":2: expected no control characters, got U+0085"),
    ("a.txt", b"a\n" + b"x" * 101 + b"\n", ":2: expected at most 100 characters, got 101"),
    ("a.txt", b"x" * 1_000_000, ":1: expected at most 100 characters, got 1000000"),
    (
        "a.jsonl",
        b'{"prompt": "a"}\n{"text": "b", "id": 3}\n',
        ':2: missing key "prompt" (data.prompt_field); it has text, id',
    ),
    ("a.jsonl", b"{}\n", ':1: missing key "prompt" (data.prompt_field); it has none'),
    ("a.jsonl", b'{"prompt": "a"}\n["b"]\n', ":2: expected a JSON object, got a list"),
    ("a.jsonl", b'"a"\n', ":1: expected a JSON object, got 'a'"),
    ("a.jsonl", b'{"prompt": null}\n', ':1: "prompt": expected a text, got null'),
    ("a.jsonl", b'{"prompt": ["a"]}\n', ':1: "prompt": expected a text, got a list'),
    ("a.jsonl", b'{"prompt": "a"\n', ":1: expected a JSON object, got a line that is not JSON"),
    (
        "a.jsonl",
        b'\n\n{"prompt": "a"} x\n',
        ":3: expected a JSON object, got a line that is not JSON",
    ),
    ("a.jsonl", b"[" * 100_000, ":1: expected a JSON object, got a line that is not JSON"),
    (
        "a.jsonl",
        b'{"prompt": "a", "n": ' + b"9" * 5000 + b"}",
        ":1: expected a JSON object, got a line that is not",
    ),
    ("a.jsonl", b'{"prompt": "a\\u0000"}\n', ":1: expected no control characters, got U+0000"),
    ("a.jsonl", b'{"prompt": "a\\ud800"}\n', ":1: expected no control characters, got U+D800"),
    ("a.jsonl", b'{"prompt": ""}\n', ": expected at least one prompt"),
    (
        "a.csv",
        b"id,text\n1,a\n",
        ':1: missing key "prompt": expected one column of that name (data.prompt_field), '
        "got the columns id, text",
    ),
    ("a.csv", b"prompt,prompt\na,b\n", ':1: missing key "prompt": expected one column'),
    (
        "a.csv",
        b"id,prompt\n1,a\n2,a cat, a dog\n",
        ":3: expected 2 fields, got 3 (a comma inside a prompt needs quotes)",
    ),
    ("a.csv", b"id,prompt\n1\n", ":2: expected 2 fields, got 1"),
    ("a.csv", b'prompt\n"a\n', ":2: not CSV"),
    ("a.csv", b'prompt\n"a\nb"\n', ":3: expected no control characters, got U+000A"),
    ("a.csv", b"prompt\n" + b"x" * 200_000, ":2: not CSV: field larger than field limit"),
    ("a.csv", b"prompt\n", ": expected at least one prompt"),
    ("a.csv", b"", ": expected at least one prompt"),
    ("a.parquet", b"a\n", ": expected a file named *.txt, *.jsonl, *.csv"),
    ("prompts", b"a\n", ": expected a file named *.txt, *.jsonl, *.csv"),
]


@pytest.mark.parametrize(("name", "data", "found"), _READ)
def test_reads(name: str, data: bytes, found: list[str], tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    assert [task.prompt for task in prompts.read(path, 100)] == found


@pytest.mark.parametrize(("name", "data", "says"), _REFUSED, ids=lambda value: repr(value)[:30])
def test_refuses_by_file_line_and_byte(name: str, data: bytes, says: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(InputError) as caught:
        prompts.read(path, 100)
    assert str(caught.value).startswith(f"{path}{says}")
    assert "\n" not in str(caught.value)


def test_refuses_what_is_not_a_readable_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.txt"
    with pytest.raises(InputError, match=r"a\.txt: no such file$"):
        prompts.read(path, 100)
    path.mkdir()
    with pytest.raises(InputError, match=r"a\.txt: expected a file, got a folder$"):
        prompts.read(path, 100)
    with pytest.raises(InputError, match="cannot be read: embedded null byte"):
        prompts.read(Path("a\0.txt"), 100)

    def refuse(self: Path, mode: str) -> None:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "b.txt").write_text("a\n")
    monkeypatch.setattr(Path, "open", refuse)  # the tests may run as a user who may read everything
    with pytest.raises(InputError, match=r"b\.txt: cannot be read: Permission denied$"):
        prompts.read(tmp_path / "b.txt", 100)


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(data=st.binary(max_size=60), name=st.sampled_from(["a.txt", "a.jsonl", "a.csv"]))
def test_any_bytes_are_clean_prompts_or_refused(
    data: bytes, name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / name
    path.write_bytes(b"prompt\n" + data if name == "a.csv" else data)
    try:
        found = [task.prompt for task in prompts.read(path, 40)]
    except InputError as error:
        assert str(error).startswith(str(path))
    else:
        assert found and all(0 < len(text) <= 40 and text.strip(" \t") == text for text in found)


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(
    texts=st.lists(st.sampled_from("abcdefghijklmnop"), min_size=1, max_size=60),
    seed=st.integers(0, 2**63 - 1),
)
def test_split_parts_every_text_once(texts: list[str], seed: int) -> None:
    tasks = [Task(text) for text in texts]
    train, held = ([task.prompt for task in part] for part in prompts.split(tasks, seed))
    if len(set(texts)) == 1:
        assert train == held == texts
        return
    assert not set(train) & set(held)
    assert sorted(train + held) == sorted(texts)
    assert len(set(held)) == max(1, round(len(set(texts)) / 10))
    assert {task.prompt for task in prompts.split(tasks[::-1], seed)[1]} == set(held)


def test_split_follows_the_seed() -> None:
    tasks = [Task(f"prompt {number}") for number in range(100)]
    parts = {tuple(prompts.split(tasks, seed)[1]) for seed in range(5)}
    assert len(parts) == 5
    assert all(len(part) == 10 and list(part) == sorted(part, key=tasks.index) for part in parts)
    assert len(prompts.split(tasks, 0, share=0.999)[0]) == 1


def test_builtin_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.resources.files", lambda package: tmp_path)
    with pytest.raises(InputError, match="unknown built-in prompts 'mine'; known: none"):
        prompts.builtin("mine")
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / "mine-train.txt").write_text("a\nb\n")
    with pytest.raises(InputError, match=r"mine-heldout\.txt is missing"):
        prompts.builtin("mine")
    (tmp_path / "prompts" / "mine-heldout.txt").write_text("c\n")
    assert prompts.builtin("mine") == ([Task("a"), Task("b")], [Task("c")])
    for name in ("yours", "../prompts/mine", "", "a" * 300, "mine\0"):
        with pytest.raises(InputError, match=r"unknown built-in prompts .*; known: mine$"):
            prompts.builtin(name)


def test_another_key_or_column_may_hold_the_prompts(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("Prompts,Category\na cat,Colors\n")
    (tmp_path / "a.jsonl").write_text('{"caption": "a dog", "prompt": 3}\n')
    assert prompts.read(tmp_path / "a.csv", 100, "Prompts") == [
        Task("a cat", metadata={"Category": "Colors"})
    ]
    assert prompts.read(tmp_path / "a.jsonl", 100, "caption") == [
        Task("a dog", metadata={"prompt": 3})
    ]


def test_the_built_in_sets_are_what_their_script_writes(tmp_path: Path) -> None:
    script = Path(__file__).parent.parent / "scripts" / "write_prompts.py"
    subprocess.run(
        [sys.executable, str(script), "--output", str(tmp_path)], check=True, timeout=120
    )
    shipped = resources.files("treerl").joinpath("prompts")
    written = sorted(path.name for path in tmp_path.iterdir())
    assert written == [
        f"{name}-{part}.txt" for name in ("clips", "scenes") for part in ("heldout", "train")
    ]
    for name in written:
        assert (tmp_path / name).read_bytes() == shipped.joinpath(name).read_bytes()


@pytest.mark.parametrize("name", ["scenes", "clips", "shapes", "moving-shapes"])
def test_no_built_in_prompt_is_repeated_or_on_both_sides(name: str) -> None:
    train, heldout = prompts.builtin(name)
    assert len(set(train + heldout)) == len(train) + len(heldout)
    assert min(len(train), len(heldout)) >= 30
