"""A run's page: it shows what the run wrote, whole or broken off, and outside text stays text."""

import html
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from recorded import Recorded, create, manifest, record

from treerl.errors import InputError
from treerl.report import charts, page
from treerl.run.files import SampleRow, SamplesFile, Shot, Status, TreeFile
from treerl.run.reading import read

ATTACK = "\"'><script>alert(1)</script><img src=http://x onerror=a()>\u202e{{ 7 * 191 }}</style>"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    return record(create(tmp_path_factory.mktemp("runs") / "run", "treegrpo"))


@pytest.fixture
def run(tmp_path: Path) -> Recorded:
    """A run that this test may change."""
    return record(create(tmp_path / "run", "treegrpo"), iterations=2, every=1)


def _text(rendered: str) -> str:
    """What somebody reads."""
    body = rendered.split("</style>", 1)[1]
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", body)))


def test_the_page_appears_whole_beside_the_files(written: Recorded) -> None:
    path = page.write(written.path)
    assert path == written.path / "report.html"
    assert path.read_text(encoding="utf-8") == page.render(read(written.path))
    assert not list(written.path.glob(".*"))


def test_it_shows_what_the_run_wrote(written: Recorded) -> None:
    rendered = page.render(read(written.path))
    text = _text(rendered)
    assert "world (tiny) · treegrpo (arXiv 2512.08153) · reward blue + 0.25 × dark done" in text
    for row in written.rows:
        point = f"iteration {row['iteration']}: {row['reward']:.4g} ± {row['reward_std']:.4g}"
        assert point.replace("-", "−") in text
    assert "treerl run --seed 3" in text
    assert "torch 2.13.0" in text
    assert "name: world" in text
    assert "not complete" not in text
    assert "2 train, 3 heldout" in text


def test_held_out_curves_run_from_before_training_to_after_it(written: Recorded) -> None:
    text = _text(page.render(read(written.path)))
    assert written.after is not None
    ends = [(0, written.before.summary()), (4, written.after.summary())]
    between = [(2, written.rows[1]["heldout"])]
    for iteration, summary in (*ends, *between):
        quality = dict(summary["quality"])
        assert quality.pop("saturation") == 0  # a constant, so a sentence and no chart
        for figures in ({"reward": summary["reward"]}, summary["watched"], quality):
            for value in figures.values():
                assert f"iteration {iteration}: {value:.4g}".replace("-", "−") in text
    start = ends[0][1]["reward"]
    assert f"Held-out reward: {charts.show(start)} →" in text


def test_every_chart_has_a_caption_and_constants_are_sentences(written: Recorded) -> None:
    rendered = page.render(read(written.path))
    heads = re.findall(r"<header><h3>(.*?)</h3>.*?</header>\s*<p>(.*?)</p>", rendered, re.DOTALL)
    names = [name for name, _ in heads]
    assert {"reward", "contrast", "grad norm", "rewards · blue"} <= set(names)
    assert all(len(caption) > 20 for _, caption in heads)
    assert rendered.count('class="chart"') == len(heads)
    assert "leaves" not in names
    assert "leaves 16" in _text(rendered)


def test_a_figure_of_ones_own_is_a_chart_with_a_caption(run: Recorded) -> None:
    for iteration in (3, 4):
        row = {"iteration": iteration, "entropy_of_mine": 0.5 * iteration, "mine": {"<b>": -1.0}}
        run.folder.append_metrics(row)
    rendered = page.render(read(run.path))
    assert re.search(r"<h3>entropy of mine</h3>\s*<b>1.5 → 2</b></header>\s*<p>a figure", rendered)
    assert "mine · &lt;b&gt; −1" in rendered


def test_a_figure_of_one_iteration_is_not_said_of_all(run: Recorded) -> None:
    run.folder.append_metrics({"iteration": 3, "entropy_of_mine": 0.5})
    assert "entropy of mine 0.5 (in 1 of 3)" in _text(page.render(read(run.path)))


def test_the_first_tree_stands_beside_the_last(written: Recorded) -> None:
    rendered = page.render(read(written.path))
    text = _text(rendered)
    assert text.index("Iteration 1 (first)") < text.index("Iteration 4 (last)")
    assert "What to look at" in text
    for step in (written.first, written.last):
        assert step is not None
        leaves = step.tree.leaves[step.tree.task[step.tree.leaves] == 0]
        scores = step.scores[leaves, 0] + 0.25 * step.scores[leaves, 1]
        spread = f"{scores.mean():.4g} ± {scores.std(unbiased=False):.4g}"
        assert f"{spread} in iteration {step.iteration + 1}".replace("-", "−") in text


def test_an_edge_that_no_update_trained_is_told_from_the_others(run: Recorded) -> None:
    file = run.path / "trees" / "last.json"
    tree = json.loads(file.read_text())
    assert "left out" not in _text(page.render(read(run.path)))
    edges = [node for node in tree["nodes"] if node["stochastic"]]
    for node in edges[:3]:
        node["trained"] = False
    file.write_text(json.dumps(tree))
    rendered = page.render(read(run.path))
    assert rendered.count('left-out" d="') == 3 < len(edges)
    assert _text(rendered).count("left out of the update") == 4  # of each edge, and the legend


def test_text_from_outside_stays_text_and_nothing_is_loaded(run: Recorded) -> None:
    content = run.manifest
    content.error = content.device = content.started = ATTACK
    content.command = content.alarms = [ATTACK]
    content.versions = {ATTACK: ATTACK}
    content.plan = {ATTACK: 1}
    run.folder.write_manifest(content)
    run.folder.append_metrics({"iteration": 7, "reward": 1.0, ATTACK: 1.0})
    run.folder.append_metrics({"iteration": 8, "reward": 2.0, ATTACK: 2.0})
    shot = Shot(image=None, score=1)
    samples = SamplesFile(samples=[SampleRow(prompt=ATTACK, before=shot)])
    (run.path / "samples" / "samples.json").write_text(samples.model_dump_json())
    tree = TreeFile.model_validate_json((run.path / "trees" / "last.json").read_bytes())
    tree.prompt = ATTACK
    (run.path / "trees" / "last.json").write_text(tree.model_dump_json())
    settings = {"recipe": ATTACK, "rewards": {ATTACK: 1}, "backbone": ATTACK}
    run.folder.write_config(json.dumps(settings))
    rendered = page.render(read(run.path))
    body = rendered.split("</style>", 1)[1]
    assert body.count("&lt;script&gt;") >= 9
    assert "\u202e" not in body
    assert "1337" not in body
    tags = re.findall(r'<(\w+)((?:\s[\w:-]+="[^"<>]*")*)\s*/?>', body)
    assert len(tags) == body.count("<") - body.count("</")  # so no tag is of another form
    assert not {name for name, _ in tags} & {"script", "iframe", "object", "embed", "form", "base"}
    for _, attributes in tags:
        pairs = re.findall(r'([\w:-]+)="([^"]*)"', attributes)
        assert not [name for name, _ in pairs if name.startswith("on")]
        assert all(value.startswith("data:") for name, value in pairs if name in ("src", "href"))
    assert "url(" not in rendered and "@import" not in rendered
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in rendered


@pytest.mark.parametrize("iterations", [0, 1])
@pytest.mark.parametrize("status", ["running", "interrupted", "failed"])
def test_a_run_that_is_broken_off_says_so(tmp_path: Path, status: Status, iterations: int) -> None:
    run = record(create(tmp_path / "run", "treegrpo"), iterations, status=status)
    run.manifest.error = "rewards: no answer" if status == "failed" else None
    run.manifest.plan["iterations"] = 60
    run.folder.write_manifest(run.manifest)
    text = _text(page.render(read(run.path)))
    word = "still running, or killed" if status == "running" else status
    assert f"The run is not complete ({word}): {iterations} of 60 iterations are here." in text
    assert ("It ended with: rewards: no answer" in text) == (status == "failed")
    assert "Nothing was evaluated after training" in text
    assert "Nothing was drawn after training" in text
    assert ("No iteration was finished" in text) == (iterations == 0)
    assert ("No tree was kept" in text) == (iterations == 0)


def test_a_manifest_alone_is_enough(tmp_path: Path) -> None:
    folder = create(tmp_path / "run", "treegrpo")
    folder.write_manifest(manifest())
    assert "run" in _text(page.render(read(folder.path)))


def test_a_folder_that_is_no_runs_has_no_page(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected a run folder, got no manifest\.json"):
        page.write(tmp_path)
    assert not list(tmp_path.iterdir())


def test_alarms_are_shown_first_and_in_full(run: Recorded) -> None:
    run.manifest.alarms = [f"iteration {number}: something is wrong" for number in range(1, 12)]
    run.folder.write_manifest(run.manifest)
    text = _text(page.render(read(run.path)))
    for alarm in run.manifest.alarms:
        assert alarm in text
    assert text.index(run.manifest.alarms[0]) < text.index("The same prompts")
    assert "3 more alarms" in text


def test_the_plan_came_true_only_if_all_of_it_did(run: Recorded) -> None:
    text = _text(page.render(read(run.path)))
    assert "The plan came true to the last call." in text
    assert "edges 112.5 112.5" in text
    run.manifest.spent["leaves"] = 63
    run.folder.write_manifest(run.manifest)
    text = _text(page.render(read(run.path)))
    assert "The plan came true" not in text
    assert "leaves 64 63" in text


def _row(before: tuple[float, float | None], after: tuple[float, float | None]) -> SampleRow:
    first = Shot(image=None, score=before[0], right=before[1])
    second = Shot(image=None, score=after[0], right=after[1])
    return SampleRow(prompt="", before=first, after=second)


def test_what_became_right_and_wrong_is_counted_and_what_stayed_is_not() -> None:
    stayed = [_row((0.5, 1.0), (0.9, 1.0)), _row((0.5, 0.0), (0.1, 0.0))]
    turned = [*stayed, _row((0, 0.0), (1, 1.0)), _row((0, 0.0), (1, 1.0)), _row((1, 1.0), (0, 0.0))]
    assert page.change(turned) == "Of these 5 prompts, 2 became right and 1 became wrong."
    assert page.change(stayed) == "Of these 2 prompts, 1 score higher than before and 1 lower."
    same = [_row((0.5, None), (0.5, None)), _row((0.5, None), (0.6, None))]
    assert page.change(same) == "Of these 2 prompts, 1 score higher than before and 0 lower."


def test_the_samples_that_changed_most_come_first(run: Recorded) -> None:
    rows = [_row((0, 1.0), (0.1, 1.0)), _row((0, 0.0), (0.9, 0.0)), _row((0.4, 1.0), (0.3, 0.0))]
    prompts = ("little", "much", "turned")
    named = [row.model_copy(update={"prompt": p}) for row, p in zip(rows, prompts, strict=True)]
    text = _text(page.render(replace(read(run.path), samples=tuple(named), trees={})))
    assert text.index("“ turned ”") < text.index("“ much ”") < text.index("“ little ”")
