"""A run's page: whole or broken off, it shows the numbers it was given and never anything it was not."""

import base64
import html
import json
import math
import random
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image, ImageDraw

from treerl.errors import StorageError
from treerl.report import charts, markup, report

COLOURS = {"red": "#d7352b", "green": "#2e9e4f", "blue": "#2f62d0", "yellow": "#e8c22b"}
SHAPES = ("circle", "square", "triangle")
PLAN = {
    "iterations": 60, "sampling_forwards": 85152, "update_forwards": 6240, "leaves": 12960, "edges": 18720,
    "decodes": 12960, "reward_calls": 12960, "optimizer_steps": 120,
}  # fmt: skip


def draw(path: Path, colour: str, shape: str, side: str, size: int = 32) -> None:
    image = Image.new("RGB", (size, size), "#e9e6dc")
    pen, middle = ImageDraw.Draw(image), size // 2
    left, top, width = (2 if side == "left" else middle - 1), size // 4, middle - 2
    corners = {"square": 4, "triangle": 3, "circle": 24}[shape]
    pen.regular_polygon(
        (left + width / 2, top + width / 2, width / 2), corners, fill=COLOURS[colour]
    )
    image.save(path)


def make_tree(folder: Path) -> None:
    """A root that splits in two."""
    folder.mkdir(parents=True)
    nodes: list[dict[str, Any]] = [
        {"id": 0, "parent": -1, "step": 0, "stochastic": False, "value": 0.5}
    ]
    for leaf, score in ((1, 0.25), (2, 0.75)):
        picture = {
            "picture": f"leaf-{leaf}.png",
            "score": score,
            "value": score,
            "advantage": 4 * score - 2,
        }
        nodes.append({"id": leaf, "parent": 0, "step": 1, "stochastic": True, **picture})
        draw(folder / f"leaf-{leaf}.png", "red", "circle", "left")
    tree = {
        "iteration": 60,
        "prompt": "a red circle on the left",
        "steps": 1,
        "window": [0],
        "nodes": nodes,
    }
    (folder / "tree.json").write_text(json.dumps(tree))


def make_samples(folder: Path, count: int, after: bool) -> None:
    folder.mkdir(parents=True)
    rows, luck = [], random.Random(3)
    for index in range(count):
        colour, shape, side = (
            tuple(COLOURS)[index % 4],
            SHAPES[index // 4 % 3],
            ("left", "right")[index // 2 % 2],
        )
        before, later = luck.random() < 0.6, luck.random() < 0.95
        row: dict[str, Any] = {
            "prompt": f"a {colour} {shape} on the {side}",
            "after": None,
            "after_score": None,
        }
        row |= {
            "before": f"before-{index:03}.png",
            "before_right": float(before),
            "after_right": None,
        }
        row["before_score"] = round(
            0.75 + 0.2 * luck.random() if before else 0.2 + 0.3 * luck.random(), 3
        )
        wrong = luck.choice([name for name in COLOURS if name != colour])
        draw(folder / row["before"], colour if before else wrong, shape, side)
        if after:
            row |= {"after": f"after-{index:03}.png", "after_right": float(later)}
            row["after_score"] = round(0.85 + 0.14 * luck.random() if later else 0.3, 3)
            draw(folder / row["after"], colour, shape if later else "square", side)
        rows.append(row)
    (folder / "samples.json").write_text(json.dumps({"samples": rows}))


def make_metrics(iterations: int) -> list[dict[str, Any]]:
    luck = random.Random(1)
    return [
        {
            "iteration": i, "reward": round(0.9 - 0.3 * math.exp(-i / 20) + luck.gauss(0, 0.025), 4),
            "reward_spread": round(0.1 + 0.12 * math.exp(-i / 25) + luck.gauss(0, 0.01), 4), "start": i % 4,
            "forwards": 1408, "update_forwards": 104, "clip_fraction": round(abs(luck.gauss(0.03, 0.02)), 4),
            "ratio_deviation": 0.0, "grad_norm": round(0.3 + abs(luck.gauss(0.2, 0.1)), 4), "zero_groups": i // 25,
            "advantage_abs": round(0.7 + luck.gauss(0, 0.04), 4), "loss": round(luck.gauss(0, 0.01), 5),
            "seconds": round(1.6 + abs(luck.gauss(0, 0.05)), 3), "rewards": {"shapes": 0.61},
        }
        for i in range(1, iterations + 1)
    ]  # fmt: skip


def make(
    run: Path, *, iterations: int = 60, after: bool = True, samples: int = 8, tree: bool = True
) -> Path:
    """A run folder as the trainer leaves it; fewer than 60 iterations make an interrupted one."""
    run.mkdir(parents=True, exist_ok=True)
    config = {
        "recipe": "treegrpo",
        "seed": 0,
        "backbone": {"name": "sd35", "model": "tiny"},
        "rewards": {"shapes": 1.0},
    }
    (run / "config.yaml").write_text(
        yaml.safe_dump(config | {"env": {"steps": 10}, "tree": {"branch": 3, "depth": 3}})
    )
    measures = {"right": 0.62, "colour": 0.81, "shape": 0.9, "place": 0.86}
    quality = {"contrast": 0.412, "roughness": 0.073, "diversity": 0.288, "saturation": 0.534}
    first = {"reward": 0.61, "measures": measures, "quality": quality, "samples": 64}
    last = {"reward": 0.93, "measures": measures | {"right": 0.95, "colour": 0.99}, "samples": 64}
    last["quality"] = quality | {"contrast": 0.431, "diversity": 0.262}
    done = iterations == 60
    spent = {key: value * iterations // 60 for key, value in PLAN.items()} | {
        "seconds": 1.637 * iterations
    }
    manifest = {
        "format": 1, "treerl": "0.1.0", "command": ["treerl", "run"], "started": "2026-11-20T21:00:00Z", "seed": 0,
        "ended": "2026-11-20T21:01:52Z" if done else None, "status": "done" if done else "interrupted", "error": None,
        "versions": {"python": "3.11.7", "torch": "2.13.0", "diffusers": "0.42.1"}, "device": "cpu", "threads": 1,
        "trainable_parameters": 117000, "plan": PLAN, "spent": spent,
        "seconds": {"load": 2.1, "evaluate": 11.4, "train": spent["seconds"]},
        "evaluation": {"before": first, "after": last if after else None},
    }  # fmt: skip
    (run / "manifest.json").write_text(json.dumps(manifest))
    (run / "metrics.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in make_metrics(iterations))
    )
    make_samples(run / "samples", samples, after)
    if tree:
        make_tree(run / "trees")
    return run


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make(tmp_path / "run", samples=4, tree=False)


def written(run: Path) -> str:
    path = report.write(run)
    assert path == run / "report.html" and [p.name for p in run.glob(".report*")] == []
    return path.read_text(encoding="utf-8")


def test_shows_the_numbers_it_was_given(run: Path) -> None:
    page = written(run)
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page.split("</style>")[1]))
    assert "sd35 (tiny) · TreeGRPO · reward shapes" in text
    assert "Held-out captions drawn right: 62 % → 95 %" in text and "60 of 60" in text
    for value in PLAN.values():
        assert f" {value:,} {value:,} " in text
    for row in json.loads((run / "samples/samples.json").read_text())["samples"]:
        assert (
            f"{row['before_score']:.2f}" in text
            and f"{row['after_score']:.2f}" in text
            and row["prompt"] in text
        )
    for row in make_metrics(60):
        assert (
            f"iteration {row['iteration']}: {row['reward']:.4g} ± {row['reward_spread']:.4g}"
            in page
        )
    assert "contrast 0.412 0.431 +0.019" in text and "torch 2.13.0" in text and "treerl run" in text
    assert "not complete" not in text and "could not be read" not in text


def test_hostile_text_stays_text_and_nothing_is_loaded(run: Path) -> None:
    attack = "\"'><script>alert(1)</script><img src=http://x onerror=a()>\u202e\0\ud800</style>"
    make_tree(run / "trees")
    edit(run / "trees/tree.json", prompt=attack)
    edit(run / "samples/samples.json", samples=[{"prompt": attack, "before": "before-000.png"}])
    edit(
        run / "manifest.json",
        error=attack,
        device=attack,
        status=attack,
        command=[attack],
        versions={attack: attack},
    )
    (run / "config.yaml").write_text(json.dumps({"recipe": attack, "rewards": {attack: 1}}))
    (run / "metrics.jsonl").write_text(json.dumps({"iteration": 1, "reward": 0.5, attack: 1.0}))
    page = written(run)
    assert "&lt;script&gt;" in page and "\0" not in page
    tags = re.findall(r'<(\w+)((?: [\w-]+="[^"<>]*")*)>', page.split("</style>")[1])
    assert len(tags) == page.split("</style>")[1].count("<") - page.split("</style>")[1].count("</")
    assert not {tag for tag, _ in tags} & {
        "script",
        "iframe",
        "object",
        "embed",
        "form",
        "base",
        "link",
        "style",
    }
    for _, attributes in tags:
        names = dict(re.findall(r' ([\w-]+)="([^"]*)"', attributes))
        assert not [name for name in names if name.startswith("on")]
        assert all(names[name].startswith("data:") for name in ("src", "href") if name in names)
    assert "url(" not in page and "@import" not in page
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    assert f'http-equiv="Content-Security-Policy" content="{policy}"' in html.unescape(page)


@pytest.mark.parametrize("iterations", [0, 1, 3])
def test_interrupted_run_says_so(tmp_path: Path, iterations: int) -> None:
    page = written(
        make(tmp_path / "run", iterations=iterations, after=False, samples=2, tree=False)
    )
    assert f"The run is not complete (interrupted): {iterations} of 60 iterations are here." in page
    assert (
        "no held-out evaluation after training" in page
        and "No tree was recorded" in page
        and "→" not in page
    )
    assert ("No iteration was finished" in page) == (iterations == 0)


@pytest.mark.parametrize(
    "evaluation", [None, {"before": None, "after": None}, {"before": {"reward": 0.5}, "after": {}}]
)
def test_hardly_anything_is_enough(tmp_path: Path, evaluation: object) -> None:
    (tmp_path / "manifest.json").write_text(
        json.dumps({"evaluation": evaluation, "status": "running"})
    )
    assert "still running, or killed" in written(tmp_path)


def test_torn_rows_are_left_out_and_rows_written_twice_count_once(run: Path) -> None:
    lines = [
        json.dumps({"iteration": i, "reward": r})
        for i, r in ((1, 0.1), (2, 0.25), (2, 0.75), (3, math.nan))
    ]
    (run / "metrics.jsonl").write_bytes(
        "\n".join([*lines, '{"iteration": 4, "rew\xff']).encode("latin-1")
    )
    page = written(run)
    assert "1 line of metrics.jsonl could not be read" in page
    assert (
        "iteration 2: 0.75" in page
        and "0.25" not in page.split("</style>")[1].split("One tree")[0].split("hits")[1]
    )


@pytest.mark.parametrize(
    "name", ["../leaf.png", "/etc/passwd", "a/b.png", "..", "", "a\0.png", "x" * 101, 7, "link.png"]
)
def test_names_that_lead_elsewhere_are_refused(run: Path, name: object) -> None:
    (run.parent / "leaf.png").write_bytes((run / "samples/before-000.png").read_bytes())
    (run / "samples/link.png").symlink_to(run.parent / "leaf.png")
    edit(run / "samples/samples.json", samples=[{"prompt": "x", "before": name}])
    with pytest.raises(StorageError):
        report.write(run)
    assert not (run / "report.html").exists()


def test_every_picture_is_embedded_and_a_missing_one_is_named(run: Path) -> None:
    make_tree(run / "trees")
    page = written(run)
    embedded = [
        base64.b64decode(data)
        for data in re.findall(r"data:image/png;base64,([A-Za-z0-9+/=]+)", page)
    ]
    assert (
        sorted(embedded) == sorted(path.read_bytes() for path in run.glob("*/*.png"))
        and len(embedded) == 10
    )
    (run / "samples/before-001.png").unlink()
    (run / "samples/after-002.png").write_bytes(b"\x89PNG torn")
    assert written(run).count("file missing or torn") == 2


def test_figures_never_flatter() -> None:
    assert [markup.percent(share) for share in (0, 0.004, 0.62, 0.9961, 1)] == [
        "0 %",
        "0.4 %",
        "62 %",
        "99.6 %",
        "100 %",
    ]
    assert [markup.show(x) for x in (0.9999, 1234567, -2, None, math.nan)] == [
        "0.9999",
        "1,234,567",
        "−2",
        "–",
        "nan",
    ]
    assert (
        charts.ticks(0, 1, 5) == [0, 0.2, 0.4, 0.6, 0.8, 1]
        and charts.smooth([2.0] * 9) == [2.0] * 9
    )
