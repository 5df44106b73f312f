"""Writes a run folder as one self-contained HTML page that explains itself."""

import os
from pathlib import Path

from treerl.errors import StorageError
from treerl.report import curves, gallery, tables, treeview
from treerl.report.markup import Html, duration, element, number, percent, quoted, show
from treerl.report.runfolder import Run, part, read
from treerl.report.stylesheet import CSS

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_RECIPES = (
    "TreeGRPO",
    "BranchGRPO",
    "MixGRPO",
    "Flow-GRPO",
    "Flow-GRPO-Fast",
    "DanceGRPO",
    "DDPO",
    "TempFlow-GRPO",
)

_ALARMS = 5  # shown; the rest stands in the manifest


def write(run: Path) -> Path:
    """Write `run/report.html` from what the run folder holds and return its path."""
    found = read(run)
    target, draft = run / "report.html", run / f".report.{os.getpid()}.tmp"
    try:
        draft.write_bytes(page(found).encode("utf-8", "replace"))
        draft.replace(target)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise StorageError(f"{target}: {error.strerror or error}") from error
    return target


def page(run: Run) -> str:
    """The whole page as text."""
    name = title(run)
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="referrer", content="no-referrer"),
        element("link", rel="icon", href="data:,"),  # or browsers ask for one
        element("title", f"{name} – treerl"),
        element("style", Html(CSS)),
    )
    parts = (
        _hero(run, name),
        _pairs(run),
        _curves(run),
        _tree(run),
        _tables(run),
        _origin(run),
        _footer(run),
    )
    return f'<!doctype html>\n<html lang="en">{head}{element("body", element("main", *parts))}</html>\n'


def title(run: Run) -> str:
    """What was trained by what: `sd35 (tiny) · TreeGRPO · reward shapes`."""
    backbone, rewards = part(run.config, "backbone"), part(run.config, "rewards")
    model = str(backbone.get("model") or "").rstrip("/").rsplit("/", 1)[-1]
    parts = [str(backbone.get("name") or run.name) + (f" ({model})" if model else "")]
    if recipe := str(run.config.get("recipe") or ""):
        known = {_plain(name): name for name in _RECIPES}
        parts.append(known.get(_plain(recipe), recipe))
    if rewards:
        weighted = (
            str(name) if weight == 1 else f"{show(weight)} × {name}"
            for name, weight in rewards.items()
        )
        parts.append(("reward " if len(rewards) == 1 else "rewards ") + " + ".join(weighted))
    return " · ".join(parts)


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())


def _section(heading: str, lead: str, *parts: str) -> Html:
    return element("section", element("h2", heading), element("p", lead, class_="lead"), *parts)


def _held_out(run: Run) -> tuple[str, str | None, str | None]:
    """What the held-out evaluation measured, before and after; None where it was not made."""
    rights = [
        part(run.manifest, "evaluation", when, "measures").get("right")
        for when in ("before", "after")
    ]
    if number(rights[0]) is not None:
        before, after = (
            None if (share := number(right)) is None else percent(share) for right in rights
        )
        return "Held-out captions drawn right", before, after
    rewards = [
        number(part(run.manifest, "evaluation", when).get("reward")) for when in ("before", "after")
    ]
    before, after = (None if reward is None else show(reward) for reward in rewards)
    return "Held-out reward", before, after


def _result(run: Run) -> Html:
    what, before, after = _held_out(run)
    if before is not None and after is not None:
        was = element("span", f"{before} →", class_="was")
        return element("p", f"{what}: ", was, " ", element("b", after), class_="result")
    if before is not None:
        return element(
            "p",
            f"Before training: {what[:1].lower()}{what[1:]} ",
            element("b", before),
            class_="result",
        )
    return element("p", "No held-out evaluation yet", class_="result")


def _hero(run: Run, name: str) -> Html:
    status = str(run.manifest.get("status") or "unknown")
    known = status if status in ("done", "running", "interrupted", "failed") else "interrupted"
    return element(
        "header",
        element(
            "div",
            element("h1", name),
            element("span", status, class_=f"pill {known}"),
            class_="top",
        ),
        _result(run),
        element(
            "p",
            "From one caption a tree of pictures is grown: they share their first denoising steps, part where noise is "
            "added, and every finished picture is scored. Steps that led to better pictures are made more likely.",
            class_="lead",
        ),
        *(element("p", warning, class_="warn") for warning in _warnings(run, status)),
        _tiles(run),
    )


def _warnings(run: Run, status: str) -> list[str]:
    """What somebody must know before trusting the rest of the page."""
    warnings = []
    planned = number(part(run.manifest, "plan").get("iterations"))
    if status != "done":
        word = "still running, or killed" if status == "running" else status
        warnings.append(
            f"The run is not complete ({word}): {len(run.metrics)} of {show(planned)} iterations are here."
        )
    if run.manifest.get("error"):
        warnings.append(f"It ended with: {run.manifest['error']}")
    alarms = run.manifest.get("alarms")
    warnings += [str(one)[:500] for one in alarms[:_ALARMS]] if isinstance(alarms, list) else []
    if not part(run.manifest, "evaluation", "after"):
        warnings.append(
            "There was no held-out evaluation after training, so nothing here says whether it helped."
        )
    if run.torn:
        warnings.append(
            f"{run.torn} line{'s' * (run.torn > 1)} of metrics.jsonl could not be read and was left out."
        )
    return warnings


def _tiles(run: Run) -> Html:
    spent, seconds = part(run.manifest, "spent"), part(run.manifest, "seconds")
    rewards = [
        number(part(run.manifest, "evaluation", when).get("reward")) for when in ("before", "after")
    ]
    planned = number(part(run.manifest, "plan").get("iterations"))
    took = number(spent.get("seconds")) or number(seconds.get("train"))
    tiles = [
        (
            "held-out reward",
            " → ".join(show(reward) for reward in rewards if reward is not None) or "–",
        )
    ]
    tiles.append(
        (
            "iterations",
            f"{len(run.metrics)} of {show(planned)}" if planned else str(len(run.metrics)),
        )
    )
    tiles.append(("pictures scored", show(spent.get("leaves"))))
    tiles.append(("training time", "–" if took is None else duration(took)))
    tiles.append(("trained parameters", show(run.manifest.get("trainable_parameters"))))
    return element(
        "div",
        *(element("div", element("span", key), element("b", value)) for key, value in tiles),
        class_="tiles",
    )


def _pairs(run: Run) -> Html:
    heading = "The same captions, before and after"
    if not run.samples:
        return _section(heading, "No sample pictures were recorded.")
    lead = (
        f"Held-out captions, every pair drawn from the same noise. {gallery.summary(run.samples)}"
    )
    return _section(heading, lead, gallery.pairs(run.samples))


def _curves(run: Run) -> Html:
    total = number(part(run.manifest, "plan").get("iterations"))
    lead = "Mean score of the pictures sampled in each iteration, on training captions and with sampling noise."
    parts = (curves.others(run.metrics, total),) if run.metrics else ()
    return _section("Reward while training", lead, curves.reward(run.metrics, total), *parts)


def _tree(run: Run) -> Html:
    heading = "One tree"
    if run.forest is None or not run.forest.nodes:
        return _section(heading, "No tree was recorded yet.")
    forest = run.forest
    window = ", ".join(map(str, forest.window))
    lead = element(
        "p",
        f"Iteration {show(forest.iteration)}, caption ",
        element("b", quoted(forest.prompt)),
        ". Read it from left to right, one column a denoising step. The rewards at the right travel back along the "
        "branches; a sampled step that led to better pictures than its comparison gets a positive advantage.",
        f" Noise was added in step{'s' * (len(forest.window) > 1)} {window}." if window else "",
        class_="lead",
    )
    hint = element("p", "Scroll sideways to the pictures →", class_="note hint")
    drawing = element("div", treeview.draw(forest), class_="scroll")
    card = element("div", hint, drawing, treeview.legend(forest), class_="card")
    return element("section", element("h2", heading), lead, card)


def _tables(run: Run) -> Html:
    exact = (
        "The plan came true to the last call."
        if tables.as_planned(run)
        else "The plan and what the run has used."
    )
    costs = _section("Planned and spent", exact, tables.costs(run))
    lead = "Where the reward does not look, reward hacking would show."
    return element(
        "div", costs, _section("Quality, before and after", lead, tables.quality(run)), class_="two"
    )


def _origin(run: Run) -> Html:
    config = element(
        "details", element("summary", "The resolved configuration"), element("pre", run.config_text)
    )
    lead = (
        "Everything that is needed to run it again. One run with one seed is a lead, not a finding."
    )
    return _section(
        "Where this comes from", lead, element("div", tables.origin(run), config, class_="card")
    )


def _footer(run: Run) -> Html:
    version = run.manifest.get("treerl") or "of an unknown version"
    return element(
        "footer", f"treerl {version}. This page is one file: it loads nothing and runs no script."
    )
