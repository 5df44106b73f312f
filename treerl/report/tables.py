"""Tables of a run: the plan beside what was spent, quality before and after, and where the run comes from."""

import shlex
from collections.abc import Mapping
from typing import Any

from treerl.report.markup import Html, duration, element, number, show, signed
from treerl.report.runfolder import Run, part

_COSTS = {
    "iterations": "",
    "sampling_forwards": "model calls to sample",
    "update_forwards": "model calls to learn",
    "leaves": "finished pictures",
    "edges": "sampled steps to learn from",
    "decodes": "latents made pictures",
    "reward_calls": "",
    "optimizer_steps": "",
}


def costs(run: Run) -> Html:
    """The plan beside what was really spent."""
    plan, spent = part(run.manifest, "plan"), dict(part(run.manifest, "spent"))
    spent.setdefault("iterations", len(run.metrics))
    rows = [
        _cost(key, words, plan.get(key), spent.get(key))
        for key, words in _COSTS.items()
        if key in plan or key in spent
    ]
    if (seconds := number(spent.get("seconds"))) is not None:
        rows.append(_row("seconds", "not planned", "–", show(seconds), ""))
    return element("div", _table(("", "planned", "spent", ""), rows), class_="card scroll")


def as_planned(run: Run) -> bool:
    """Whether everything that was counted came out exactly as the plan said."""
    plan, spent = part(run.manifest, "plan"), part(run.manifest, "spent")
    both = [key for key in _COSTS if key in plan and key in spent]
    return bool(both) and all(plan[key] == spent[key] for key in both)


def _cost(key: str, words: str, planned: object, spent: object) -> Html:
    goal, used = number(planned), number(spent)
    share = used / goal if goal and used is not None else None
    meter: str = ""
    if share is not None:
        bar = element("i", style=f"width:{max(0.0, min(share, 1.0)):.1%}")
        meter = element("span", bar, class_="meter", title=f"{share:.1%} of the plan")
    return _row(key.replace("_", " "), words, show(planned), show(spent), meter)


def _row(name: str, words: str, *cells: str) -> Html:
    small = (element("small", words),) if words else ()
    return element(
        "tr", element("th", name, *small, scope="row"), *(element("td", cell) for cell in cells)
    )


def _table(heads: tuple[str, ...], rows: list[Html]) -> Html:
    head = element("thead", element("tr", *(element("th", name, scope="col") for name in heads)))
    return element("table", head, element("tbody", *rows))


def quality(run: Run) -> Html:
    """Every measure of the held-out evaluation, those the reward sees and those it does not."""
    before, after = (part(run.manifest, "evaluation", when) for when in ("before", "after"))
    if not before and not after:
        return element("p", "No held-out evaluation was made yet.", class_="note")
    seen = [_measure("reward", before.get("reward"), after.get("reward"))]
    seen += _measures(part(before, "measures"), part(after, "measures"))
    watched = _measures(part(before, "watched"), part(after, "watched"))
    unseen = _measures(part(before, "quality"), part(after, "quality"))
    rows = [_group("what the reward sees"), *seen]
    rows += [_group("rewards that are only watched"), *watched] if watched else []
    rows += [_group("what the reward does not see"), *unseen] if unseen else []
    samples = number(before.get("samples", after.get("samples")))
    note = (
        element("p", f"Means over {show(samples)} held-out pictures.", class_="note")
        if samples
        else ""
    )
    return element(
        "div",
        _table(("", "before", "after", "change", "relative"), rows),
        note,
        class_="card scroll",
    )


def _group(name: str) -> Html:
    return element("tr", element("th", name, colspan="5"), class_="group")


def _measures(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Html]:
    return [_measure(str(name), before.get(name), after.get(name)) for name in {**before, **after}]


def _measure(name: str, before: object, after: object) -> Html:
    first, second = number(before), number(after)
    change = relative = "–"
    if first is not None and second is not None:
        change = signed(second - first, 3)
        relative = f"{signed(100 * (second - first) / abs(first), 0)} %" if first else "–"
    return _row(name.replace("_", " "), "", show(before), show(after), change, relative)


def origin(run: Run) -> Html:
    """Command, seed, device, versions and times."""
    manifest = run.manifest
    command, threads = manifest.get("command"), manifest.get("threads")
    versions = part(manifest, "versions")
    seconds = part(manifest, "seconds")
    entries = {
        "command": shlex.join(str(word) for word in command) if isinstance(command, list) else "–",
        "folder": run.name,
        "seed": show(manifest.get("seed")),
        "device": f"{manifest.get('device') or '–'}, {show(threads)} thread{'s' * (threads != 1)}",
        "started": str(manifest.get("started") or "–"),
        "ended": str(manifest.get("ended") or "–"),
        "time": ", ".join(f"{name} {_time(value)}" for name, value in seconds.items()) or "–",
        "versions": ", ".join(
            [
                f"treerl {manifest.get('treerl') or '–'}",
                *(f"{name} {value}" for name, value in versions.items()),
            ]
        ),
    }
    drawn = [
        (element("dt", name), element("dd", element("code", words) if name == "command" else words))
        for name, words in entries.items()
    ]
    return element("dl", *(cell for pair in drawn for cell in pair))


def _time(value: object) -> str:
    seconds = number(value)
    return "–" if seconds is None else duration(seconds)
