"""Writes a run folder as one self-contained HTML page that explains itself."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, pstdev
from typing import Any

import jinja2
from markupsafe import Markup

from treerl.engine.recipes import recipes
from treerl.report import charts, treeview
from treerl.report.charts import Curve, decimal, show
from treerl.report.embed import Embedder
from treerl.run.durable import publish_file
from treerl.run.files import Manifest, SampleRow, Summary, TreeFile
from treerl.run.reading import RunRecord, read

# controls, marks that turn the direction of writing, and halves of letters; a line may end
_HIDDEN = [*range(10), *range(11, 32), *range(127, 160), *range(0x202A, 0x202F)]
_HIDDEN += [*range(0x2066, 0x206A), *range(0xD800, 0xE000)]
_SPELLED = {code: ascii(chr(code))[1:-1] for code in _HIDDEN}


def write(folder: Path) -> Path:
    """Write `folder/report.html` from what the folder holds; its path."""
    text = render(read(folder))
    path = folder / "report.html"
    publish_file(path, text)
    return path


def render(record: RunRecord) -> str:
    """The whole page."""
    manifest = record.manifest
    planned = manifest.plan.get("iterations") or 0
    during = charts.training(record.rows)
    summaries = evaluations(record)
    apart = charts.held_out(summaries)
    images = Embedder(record.path / "samples")
    shots = []
    for row in sorted(record.samples, key=lambda row: (-abs(turn(row)), -abs(gain(row)))):
        after = row.after and images.embed(row.after.image, 320)
        shots.append((row, images.embed(row.before.image, 320), after))
    drawings = {}
    for name, tree in record.trees.items():
        drawings[name] = treeview.lay_out(tree, Embedder(record.path / "trees" / name))
    return (
        environment()
        .get_template("page.html.j2")
        .render(
            record=record,
            manifest=manifest,
            title=title(record),
            results=[
                (curve.name, curve.points) for curve in apart if curve.name in ("reward", "right")
            ],
            warnings=warnings(record),
            samples=max((summary.samples for _, summary in summaries), default=0),
            shots=shots,
            change=change(record.samples),
            training=[
                charts.chart(c, planned, c.name == "reward") for c in during if not c.constant
            ],
            held_out=[charts.chart(curve, planned) for curve in apart if not curve.constant],
            constant=constants(during, len(record.rows)),
            held_out_constant=constants(apart, len(summaries)),
            drawings=drawings,
            compared=compared(record.trees),
            left_out=any(not edge.trained for d in drawings.values() for edge in d.edges),
            as_planned=as_planned(manifest),
            command=shlex.join(manifest.command),
        )
    )


def environment(folder: str = "report") -> jinja2.Environment:
    """Templates of that folder of treerl, with this page's style, which also a comparison wears."""
    loader = jinja2.PackageLoader("treerl", folder)
    templates = jinja2.Environment(
        loader=loader,
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: value.translate(_SPELLED) if type(value) is str else value,
    )
    styles = jinja2.PackageLoader("treerl", "report")
    style, _, _ = styles.get_source(templates, "style.css")
    templates.globals |= {"style": Markup(style), "width": treeview.WIDTH}
    templates.filters |= {"show": show, "decimal": decimal}
    return templates


def title(record: RunRecord) -> str:
    """What was trained by what: `sd35 (tiny) · treegrpo (arXiv 2512.08153) · reward shapes`."""
    backbone = record.config.get("backbone")
    settings = backbone if isinstance(backbone, dict) else {"name": backbone}
    name = str(settings.get("name") or record.path.resolve().name)
    model = settings.get("model")
    parts = [f"{name} ({Path(model).name})" if isinstance(model, str) else name]
    recipe = record.config.get("recipe")
    if isinstance(recipe, str):
        known = recipes.get(recipe)
        parts.append(f"{recipe} ({known.source})" if known else recipe)
    rewards = record.config.get("rewards")
    if isinstance(rewards, dict) and rewards:
        terms = [_weighted(str(name), settings) for name, settings in rewards.items()]
        parts.append("reward " + " + ".join(terms))
    return " · ".join(parts)


def _weighted(name: str, settings: Any) -> str:
    weight = settings.get("weight", 1) if isinstance(settings, dict) else settings
    return name if weight == 1 or not isinstance(weight, int | float) else f"{weight:g} × {name}"


def evaluations(record: RunRecord) -> list[tuple[int, Summary]]:
    """The held-out evaluations, by the iterations that were done before each."""
    before = record.manifest.summary("before")
    after = record.manifest.summary("after")
    points = [] if before is None else [(0, before)]
    points += [(row.iteration, row.heldout) for row in record.rows if row.heldout is not None]
    if after is not None:
        points.append((record.rows[-1].iteration if record.rows else 0, after))
    return points


def warnings(record: RunRecord) -> list[str]:
    """What somebody must know before trusting the rest of the page."""
    manifest = record.manifest
    texts = []
    if manifest.status != "done":
        word = "still running, or killed" if manifest.status == "running" else manifest.status
        planned = show(manifest.plan.get("iterations"))
        done = f"{len(record.rows)} of {planned} iterations are here"
        texts.append(f"The run is not complete ({word}): {done}.")
    if manifest.error:
        texts.append(f"It ended with: {manifest.error}")
    if manifest.summary("after") is None:
        texts.append("Nothing was evaluated after training, so nothing says whether it helped.")
    return texts


def turn(row: SampleRow) -> float:
    """By how much a sample became right: 1, 0 or -1 where a sample is right or not."""
    if row.after is None or row.before.right is None or row.after.right is None:
        return 0.0
    return row.after.right - row.before.right


def gain(row: SampleRow) -> float:
    """By how much the score of a sample rose."""
    if row.after is None or row.before.score is None or row.after.score is None:
        return 0.0
    return row.after.score - row.before.score


def change(samples: Sequence[SampleRow]) -> str:
    """How many of the samples became right, wrong, better or worse."""
    count = f"Of these {len(samples)} prompts,"
    turns = [turn(row) for row in samples]
    if any(turns):
        better = sum(value > 0 for value in turns)
        worse = sum(value < 0 for value in turns)
        return f"{count} {better} became right and {worse} became wrong."
    if not any(row.after for row in samples):
        return "Nothing was drawn after training."
    better = sum(gain(row) > 0 for row in samples)
    worse = sum(gain(row) < 0 for row in samples)
    return f"{count} {better} score higher than before and {worse} lower."


def constants(curves: Sequence[Curve], times: int) -> str:
    """The figures that never changed, in words; of `times` readings, or of those that had one."""
    words = []
    for curve in curves:
        if curve.constant:
            read = len(curve.points)
            seldom = f" (in {read} of {times})" if read < times else ""
            words.append(f"{curve.name} {show(curve.points[0][1])}{seldom}")
    return ", ".join(words)


def compared(trees: Mapping[str, TreeFile]) -> str:
    """What to look at in the first and the last tree."""
    words = []
    for tree in trees.values():
        scores = [node.score for node in tree.nodes if node.score is not None]
        if scores:
            spread = f"± {show(pstdev(scores))}"
            words.append(f"{show(mean(scores))} {spread} in iteration {tree.iteration}")
    return ", ".join(words)


def as_planned(manifest: Manifest) -> bool:
    """Whether all that was counted came out as the plan said."""
    both = [name for name in manifest.plan if name in manifest.spent]
    return bool(both) and all(manifest.plan[name] == manifest.spent[name] for name in both)
