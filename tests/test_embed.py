"""Images in a run's page: all that fit, none is from elsewhere, missing ones are named."""

import base64
import re
from pathlib import Path

import pytest
from PIL import Image
from recorded import Recorded, create, record

from treerl.errors import InputError
from treerl.report import page
from treerl.run.reading import read


@pytest.fixture
def run(tmp_path: Path) -> Recorded:
    """A run that this test may change."""
    return record(create(tmp_path / "run", "treegrpo"), iterations=2, every=1)


def test_every_image_is_embedded_and_a_missing_one_is_named(run: Recorded) -> None:
    files = sorted(path.read_bytes() for path in run.path.rglob("*.png"))
    data = re.findall(r"data:image/png;base64,([A-Za-z0-9+/=]+)", page.render(read(run.path)))
    assert sorted(base64.b64decode(uri) for uri in data) == files
    assert len(files) == 2 * 3 + 2 * 8
    (run.path / "samples" / "before-001.png").unlink()
    (run.path / "samples" / "after-002.png").write_bytes(b"\x89PNG torn")
    text = page.render(read(run.path))
    assert text.count("the file is missing") == 1
    assert text.count("the file is torn") == 1


def _outside(run: Recorded) -> None:
    target = run.path.parent / "secret.png"
    Image.new("RGB", (4, 4)).save(target)
    (run.path / "samples" / "before-000.png").unlink()
    (run.path / "samples" / "before-000.png").symlink_to(target)


def _many_pixels(run: Recorded) -> None:
    Image.new("1", (9000, 9000)).save(run.path / "samples" / "before-000.png")


def test_an_image_that_is_a_link_to_elsewhere_is_refused(run: Recorded) -> None:
    _outside(run)
    with pytest.raises(
        InputError, match=r"before-000\.png: expected a part of the run, got a link"
    ):
        read(run.path)


def test_a_link_that_is_laid_after_the_folder_was_read_is_left_out(run: Recorded) -> None:
    record = read(run.path)
    _outside(run)
    assert "the file is missing" in page.render(record)


def test_an_image_that_is_no_samples_is_left_out(run: Recorded) -> None:
    _many_pixels(run)
    rendered = page.render(read(run.path))
    assert "the file is too large" in rendered
    assert rendered.count("data:image/png") == 2 * 3 + 2 * 8 - 1


def test_a_large_image_is_shrunk_and_a_full_page_takes_no_more(
    run: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = Image.effect_noise((900, 600), 80)
    noise.save(run.path / "samples" / "before-000.png", save_all=True, append_images=[noise])
    rendered = page.render(read(run.path))
    assert len(rendered) < 600_000
    monkeypatch.setattr("treerl.report.embed.Embedder.bytes_left", 2000)
    monkeypatch.setattr("treerl.report.embed.Embedder.__init__.__defaults__", (2000,))
    assert "the page is full" in page.render(read(run.path))
