"""Malicious settings, prompts, images, servers and their clients: refused, or text and no more."""

import json
from pathlib import Path

import pytest
import torch
from hostile import ATTACK, DRAWINGS, ESCAPES, Place, drawing, place as place, told
from safetensors.torch import save
from test_hostile_server import SAMPLES, always, answered, plain, serving

from treerl.backbone import media
from treerl.engine.task import Task
from treerl.errors import InputError, RewardError
from treerl.reward import wire
from treerl.reward.call import measure, score
from treerl.reward.remote import Remote
from treerl.run import tasks

OWN = "./mine.py:Evil"
SETTINGS: dict[str, tuple[str, str]] = {
    "object of Python": ("seed: !!python/object/apply:os.system ['touch ../ran']", "tags are not"),
    "object as a key": ("!!python/name:os.system : 1", "tags are not allowed"),
    "bomb": ("a: &a [x, x]\nb: [*a, *a]", "aliases and anchors are not allowed"),
    "reward": (f"rewards: {{{OWN}: 1}}", "--allow-plugins"),
    "watched reward": (f"watch: [{OWN}]", "--allow-plugins"),
    "backbone": (f"backbone: {{name: {OWN}}}", "--allow-plugins"),
    "module": ("backbone: {name: 'mine:Evil'}", "--allow-plugins"),
    "branching": (f"tree: {{branching: {OWN}}}", "--allow-plugins"),
    "objective": (f"objective: {OWN}", "--allow-plugins"),
    "recipe elsewhere": ("recipe: ../../outside/precious", "recipe"),
    "prompts elsewhere": ("data: {builtin: ../../outside/precious}", "data.builtin"),
    "preset elsewhere": ("backbone: {name: ../../outside/precious}", "backbone"),
    "escapes": (f"seed: {json.dumps(ESCAPES)}", "seed"),
    "a pickle": ("", "precious"),
}


@pytest.mark.parametrize("command", ["plan", "run"])
@pytest.mark.parametrize("name", SETTINGS)
def test_settings_are_refused(
    name: str, command: str, place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    text, match = SETTINGS[name]
    Path("mine.py").write_text(place.code)
    Path("precious.yaml").write_text(text)
    if not text:
        Path("precious.yaml").write_bytes(place.pickled)
    assert match in told([command, "--config", "precious.yaml"], 2, capsys)
    assert not Path("runs").exists()


@pytest.mark.parametrize("words", [["check", "reward"], ["serve-reward"]], ids=["check", "serve"])
def test_a_plug_in_is_not_run_without_leave(
    words: list[str], place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("mine.py").write_text(place.code)
    assert "--allow-plugins" in told([*words, OWN], 2, capsys)


@pytest.mark.parametrize(
    ("file", "text", "match"),
    [
        ("a.txt", ESCAPES, "expected no control characters"),
        ("a.jsonl", json.dumps({"prompt": ESCAPES}), "expected no control characters"),
        ("a.jsonl", json.dumps({ESCAPES: 1}), 'missing key "prompt"'),
        ("a.csv", f"prompt,{ESCAPES},{ESCAPES}\na,b,c\n", "columns of different names"),
        ("a.jsonl", '{"prompt": "a", "image": "../outside/precious"}', "got another file"),
        ("a.jsonl", '{"prompt": "a", "image": "../outside"}', "expected a file, got a folder"),
        ("a.jsonl", '{"prompt": "a", "mask": "/dev/zero"}', "expected a regular file"),
    ],
    ids=["escapes", "escapes in a row", "key", "column", "image elsewhere", "folder", "device"],
)
def test_prompts_are_refused(file: str, text: str, match: str, place: Place) -> None:
    Path(file).write_text(text)
    with pytest.raises(InputError, match=match) as caught:
        tasks.read(Path(file), 1000)
    assert str(caught.value).isprintable()


def test_a_file_of_prompts_that_is_a_pickle_is_refused(place: Place) -> None:
    for suffix in (".txt", ".jsonl", ".csv", ".pkl"):
        Path(f"a{suffix}").write_bytes(place.saved)
        with pytest.raises(InputError):
            tasks.read(Path(f"a{suffix}"), 1000)


@pytest.mark.parametrize("name", DRAWINGS)
@pytest.mark.parametrize("suffix", ["png", "eps"])
def test_an_image_is_refused_by_the_prompts_and_by_the_model(
    name: str, suffix: str, place: Place
) -> None:
    path = Path(f"a.{suffix}")
    path.write_bytes(drawing(place)[name])
    Path("a.jsonl").write_text(json.dumps({"prompt": "a cat", "image": path.name}))
    with pytest.raises(InputError, match="image"):
        tasks.read(Path("a.jsonl"), 1000)
    with pytest.raises(InputError, match=r"^task 'a cat': image: "):
        media.image(Task("a cat", media={"image": path}))


REDIRECTS = {
    "file": "file:///etc/hostname",
    "another host": "http://127.0.0.2:1/score",
    "escapes": "http://\x1b[2J/",
}


@pytest.mark.parametrize("name", REDIRECTS)
def test_images_go_where_they_were_sent(name: str, place: Place) -> None:
    reply = answered(b"", "307 Temporary Redirect", f"Location: {REDIRECTS[name]}")
    with serving(always(reply)) as url:
        remote = Remote.connect("m", url, 1.5)
        with pytest.raises(RewardError, match=r"refused \(307\)$"):
            score("m", remote, SAMPLES)


def test_replies_that_are_code_are_refused(place: Place) -> None:
    for body in (place.pickled, place.saved, place.code.encode(), ATTACK.encode()):
        with serving(always(answered(body))) as url:
            remote = Remote.connect("m", url, 1.5)
            with pytest.raises(RewardError, match=r"^reward m: ") as caught:
                score("m", remote, SAMPLES)
        assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "name", ["../../outside/precious", ESCAPES, ATTACK], ids=["path", "escapes", "markup"]
)
def test_a_measure_may_be_called_like_a_path_but_not_hold_escapes(name: str, place: Place) -> None:
    with serving(always(plain(measures={name: [1, 1]}))) as url:
        remote = Remote.connect("m", url, 1.5)
        try:
            assert list(measure("m", remote, SAMPLES)) == [name] and name.isprintable()
        except RewardError as error:
            assert str(error).isprintable()


def asked(name: str, suffix: str, content: bytes) -> bytes:
    """A question to a server of rewards, about one task with one file."""
    files = {"image": [name, suffix]}
    row = {"prompt": "a", "negative": None, "metadata": {}, "size": None, "media": files}
    tensor = torch.frombuffer(bytearray(content), dtype=torch.uint8)
    metadata = {"protocol": str(wire.PROTOCOL), "tasks": json.dumps([row])}
    return save({name: tensor}, metadata)


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        ("media.0", "/../../outside/precious"),
        ("media.../outside/precious", ".png"),
        ("media.0", ".png/../../../outside/precious"),
    ],
    ids=["path for a suffix", "path for a name", "path after a suffix"],
)
def test_a_server_writes_the_files_of_a_question_nowhere_else(
    name: str, suffix: str, place: Place
) -> None:
    Path("room").mkdir()
    (task,), _ = wire.tasks_of(asked(name, suffix, place.pickled), Path("room"))
    assert [Path(path).parent for path in task.media.values()] == [Path("room")]


def test_a_question_that_is_a_pickle_is_refused(place: Place) -> None:
    for message in (place.pickled, place.saved):
        with pytest.raises(wire.WireError):
            wire.tasks_of(message, place.inside)
