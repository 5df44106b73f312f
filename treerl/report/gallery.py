"""Shows held-out captions as picture pairs, before and after training, and tells in one line what changed."""

from collections.abc import Sequence

from treerl.report.markup import Html, element, join, quoted
from treerl.report.runfolder import Picture, Sample

_OPEN = 12  # pairs that are shown at once


def order(samples: Sequence[Sample]) -> list[Sample]:
    """The pairs whose verdict changed first, for better or worse, then those whose score moved most."""
    return sorted(samples, key=lambda sample: (-abs(_turn(sample)), -abs(_gain(sample))))


def _turn(sample: Sample) -> float:
    known = sample.before_right is not None and sample.after_right is not None
    return (sample.after_right or 0.0) - (sample.before_right or 0.0) if known else 0.0


def _gain(sample: Sample) -> float:
    known = sample.before_score is not None and sample.after_score is not None
    return (sample.after_score or 0.0) - (sample.before_score or 0.0) if known else 0.0


def summary(samples: Sequence[Sample]) -> str:
    """How many of the pairs became right, wrong, better or worse."""
    if not any(sample.after for sample in samples):
        return "No pictures were drawn after training."
    if any(_turn(sample) for sample in samples):
        better, worse = (
            sum(1 for sample in samples if sign * _turn(sample) > 0) for sign in (1, -1)
        )
        return f"Of these {len(samples)} captions, {better} became right, {worse} became wrong."
    better, worse = (sum(1 for sample in samples if sign * _gain(sample) > 0) for sign in (1, -1))
    return f"Of these {len(samples)} captions, {better} score higher than before, {worse} lower."


def pairs(samples: Sequence[Sample]) -> Html:
    """All pairs, the most telling ones open and the rest folded away."""
    figures = [_figure(sample) for sample in order(samples)]
    shown = element("div", *figures[:_OPEN], class_="pairs")
    if len(figures) <= _OPEN:
        return shown
    rest = element("div", *figures[_OPEN:], class_="pairs")
    return join(
        (
            shown,
            element("details", element("summary", f"{len(figures) - _OPEN} more captions"), rest),
        )
    )


def _figure(sample: Sample) -> Html:
    before = _shot("before", sample.before, sample.before_score, sample.before_right)
    after = _shot("after", sample.after, sample.after_score, sample.after_right)
    return element(
        "figure",
        element("div", before, after, class_="pair"),
        element("figcaption", quoted(sample.prompt)),
    )


def _shot(when: str, picture: Picture | None, score: float | None, right: float | None) -> Html:
    if picture is None:
        drawn = element("div", f"no picture {when}", class_="none")
    elif picture.uri is None:
        drawn = element("div", "file missing or torn", class_="none")
    else:
        drawn = element(
            "img", src=picture.uri, alt=when, class_="pixels" if picture.small else None
        )
    below: list[str] = [element("span", when)]
    if score is not None:
        below.append(element("b", f"{score:.2f}".replace("-", "−"), _verdict(right)))
    return element("div", drawn, element("p", *below), class_="shot")


def _verdict(right: float | None) -> Html:
    if right is None:
        return Html("")
    good = right >= 0.5
    return join(
        (
            " ",
            element(
                "span", "✓" if good else "✗", class_="yes" if good else "no", title=_words(good)
            ),
        )
    )


def _words(good: bool) -> str:
    return "drawn right" if good else "not drawn right"
