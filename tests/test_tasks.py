"""Rows of prompt files as tasks: media, sizes and metadata, and what is refused without a model."""

import os
from pathlib import Path

import pytest
from PIL import Image

from treerl.engine.task import Task
from treerl.errors import InputError
from treerl.run import tasks as prompts


def test_tasks_with_other_media_are_other_tasks(tmp_path: Path) -> None:
    tasks = [Task("make it red", media={"image": tmp_path / f"{n}.png"}) for n in range(20)]
    train, held = prompts.split(tasks, 0)
    assert (len(train), len(held)) == (18, 2) and not any(task in train for task in held)


def _images(folder: Path) -> None:
    Image.new("RGB", (16, 8)).save(folder / "a.png")
    Image.new("RGB", (16, 8)).save(folder / "b.jpg")


def test_a_row_is_a_task_with_all_that_it_says(tmp_path: Path) -> None:
    _images(tmp_path)
    (tmp_path / "a.jsonl").write_text(
        '{"prompt": "a", "negative": "blur", "image": "a.png", "last_image": "b.jpg",'
        ' "height": 64, "width": 128, "n": 3, "tags": ["x"]}\n{"prompt": "b", "image": null}\n'
    )
    (tmp_path / "a.csv").write_text("prompt,negative,image,height,width,n\na,,a.png,64,128,3\n")
    full, bare = prompts.read(tmp_path / "a.jsonl", 100)
    media = {"image": tmp_path / "a.png", "last_image": tmp_path / "b.jpg"}
    assert full == Task("a", "blur", media, {"n": 3, "tags": ["x"]}, (64, 128))
    assert bare == Task("b")
    (row,) = prompts.read(tmp_path / "a.csv", 100)
    assert row == Task("a", None, {"image": tmp_path / "a.png"}, {"n": "3"}, (64, 128))


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ('"negative": 3', '"negative": expected a text, got 3'),
        ('"negative": "a\\u0007"', "expected no control characters, got U+0007"),
        ('"height": 64', 'expected both "height" and "width" or neither'),
        ('"height": 64, "width": true', '"width": expected an integer from 1 to 16384, got true'),
        ('"height": 64, "width": 1e9', '"width": expected an integer from 1 to 16384'),
        ('"image": 3', '"image": expected a text, got 3'),
        ('"image": "none.png"', '"image": {}/none.png: no such file'),
        ('"image": "."', "expected a file, got a folder"),
        ('"image": "pipe"', "expected a regular file"),
        ('"image": "text.png"', "expected a PNG, JPEG or WebP image, got another file"),
        ('"image": "cut.jpg"', "expected a PNG, JPEG or WebP image, got a damaged one"),
        ('"image": "vast.png"', "expected at most 67108864 pixels, got 9000 x 9000"),
        ('"n": NaN', "NaN is no number"),
        ('"n": 1, "n": 2', "a key stands twice in an object"),
    ],
)
def test_refuses_what_a_task_cannot_have(row: str, says: str, tmp_path: Path) -> None:
    _images(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "text.png").write_text("no image")
    Image.effect_noise((256, 256), 100).save(tmp_path / "whole.jpg")
    whole = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])  # its header is there
    Image.new("1", (9000, 9000)).save(tmp_path / "vast.png")
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"prompt": "a"}}\n{{"prompt": "b", {row}}}\n')
    with pytest.raises(InputError) as caught:
        prompts.read(path, 100)
    message = str(caught.value)
    assert message.startswith(f"{path}:2: ") and says.format(tmp_path) in message
    assert "\n" not in message


def test_more_rows_than_any_run_can_use_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("treerl.run.promptfile._MOST", 3)
    (tmp_path / "a.txt").write_text("a\n" * 4)
    with pytest.raises(InputError, match=r"a\.txt:4: expected at most 3 prompts, got more$"):
        prompts.read(tmp_path / "a.txt", 100)
