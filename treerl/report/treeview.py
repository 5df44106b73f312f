"""Draws the recorded trees of one prompt as inline SVG: noise on the left, scored pictures on the right."""

from collections.abc import Mapping
from dataclasses import dataclass

from treerl.report.markup import Html, element, join, show, signed
from treerl.report.runfolder import Forest, Node

_WIDTH = 1040.0
_HEAD = 52.0  # room above the drawing for the step numbers
_LEFT = 24.0
_SCORE = 92.0  # room at the right for a leaf's reward


@dataclass(frozen=True)
class _Layout:
    xs: tuple[float, ...]  # [steps + 1] the place of a state after so many steps
    ys: Mapping[int, float]  # by node id
    children: Mapping[int, tuple[Node, ...]]
    sampled: frozenset[int]  # steps with at least one sampled edge
    height: float
    picture: float  # side of a leaf's picture
    scale: float  # the largest |advantage|, 1 when there is none

    def leaf(self, node: Node) -> bool:
        return not self.children[node.id]


def draw(forest: Forest) -> Html:
    """The drawing of `forest`: grey lines are deterministic steps, coloured ones were sampled."""
    layout = _layout(forest)
    by_id = {node.id: node for node in forest.nodes}
    leaves = [node for node in forest.nodes if layout.leaf(node)]
    return element(
        "svg",
        _columns(layout),
        *_segments(layout, by_id),
        *(
            _edge(layout, node, by_id[node.parent])
            for node in forest.nodes
            if node.stochastic and node.parent in by_id
        ),
        *(
            _branch(layout, node)
            for node in forest.nodes
            if node.parent == -1 or len(layout.children[node.id]) > 1
        ),
        *_leaves(layout, leaves),
        viewBox=f"0 0 {_WIDTH:g} {layout.height:g}",
        class_="tree",
        role="img",
        aria_label=f"a tree with {len(leaves)} finished pictures",
    )


def legend(forest: Forest) -> Html:
    """What the marks of the drawing mean."""
    scale = _scale(forest)

    def entry(mark: Html, words: str) -> Html:
        return element("span", mark, element("span", words), class_="key")

    ramp = join((signed(-scale), " ", element("i", class_="ramp"), " ", signed(scale)))
    ramped = element(
        "span",
        element("span", ramp, class_="ramped"),
        element("span", "advantage of a sampled step"),
        class_="key",
    )
    return element(
        "div",
        entry(element("i", class_="key-ode"), "deterministic step (ODE): nothing to learn from"),
        entry(
            element("i", class_="key-window"), "window: noise is added here, branches part (SDE)"
        ),
        ramped,
        entry(
            element("i", class_="key-branch"),
            "branching point with its value, carried back from its pictures",
        ),
        class_="legend",
    )


def _scale(forest: Forest) -> float:
    return (
        max(
            (abs(node.advantage) for node in forest.nodes if node.advantage is not None),
            default=0.0,
        )
        or 1.0
    )


def _layout(forest: Forest) -> _Layout:
    below: dict[int, list[Node]] = {node.id: [] for node in forest.nodes}
    for node in forest.nodes:
        if node.parent in below:
            below[node.parent].append(node)
    children = {identity: tuple(nodes) for identity, nodes in below.items()}
    count = sum(1 for nodes in children.values() if not nodes)
    picture = 64.0 if count <= 9 else 52.0 if count <= 16 else 38.0 if count <= 32 else 26.0
    ys, height = _rows(forest, children, picture + 6)
    sampled = frozenset(node.step - 1 for node in forest.nodes if node.stochastic and node.step > 0)
    return _Layout(
        _places(forest.steps, sampled, picture),
        ys,
        children,
        sampled,
        height,
        picture,
        _scale(forest),
    )


def _places(steps: int, sampled: frozenset[int], picture: float) -> tuple[float, ...]:
    """Sampled steps get wide columns: that is where something happens."""
    weights = [3.2 if step in sampled else 1.0 for step in range(steps)]
    unit = (_WIDTH - _LEFT - picture - _SCORE - 14) / (sum(weights) or 1.0)
    places = [_LEFT]
    for weight in weights:
        places.append(places[-1] + weight * unit)
    return tuple(places)


def _rows(
    forest: Forest, children: Mapping[int, tuple[Node, ...]], row: float
) -> tuple[dict[int, float], float]:
    """Leaves one below the other, families kept together by a gap; a parent stands in the middle of its children."""
    ys: dict[int, float] = {}
    cursor, family = _HEAD - 6, None
    stack = [(node, node.id) for node in reversed(forest.nodes) if node.parent == -1]
    alone = len(stack) > 1 and all(len(nodes) < 2 for nodes in children.values())
    while stack:
        node, parting = stack.pop()
        below = children[node.id]
        if not below:
            cursor += 10.0 if family not in (None, parting) and not alone else 0.0
            ys[node.id], family = cursor + row / 2, parting
            cursor += row
        parting = node.id if len(below) > 1 else parting
        stack.extend((child, parting) for child in reversed(below))
    for node in reversed(forest.nodes):
        if below := children[node.id]:
            ys[node.id] = (ys[below[0].id] + ys[below[-1].id]) / 2
    return ys, cursor + 8


def _columns(layout: _Layout) -> Html:
    """The step numbers above their columns, and the window behind the sampled ones."""
    drawn = []
    steps = len(layout.xs) - 1
    for step in range(steps):
        left, right = layout.xs[step], layout.xs[step + 1]
        if step in layout.sampled:
            box = {"x": left, "y": 24.0, "width": right - left, "height": layout.height - 28}
            drawn.append(element("rect", class_="window", **box))
        if right - left >= 16 or step % 5 == 0:
            shade = "step sampled" if step in layout.sampled else "step"
            drawn.append(element("text", str(step), x=(left + right) / 2, y=38, class_=shade))
    starts = [step for step in sorted(layout.sampled) if step - 1 not in layout.sampled]
    ends = [step for step in sorted(layout.sampled) if step + 1 not in layout.sampled]
    for first, last in zip(starts, ends, strict=True):
        middle = (layout.xs[first] + layout.xs[last + 1]) / 2
        drawn.append(element("text", "window", x=middle, y=16, class_="head sampled"))
    if 0 not in starts or layout.xs[-1] > 4 * _LEFT:
        drawn.append(element("text", "noise", x=4, y=16, class_="head first"))
    drawn.append(element("text", "picture and reward", x=_WIDTH - 4, y=16, class_="head last"))
    return join(drawn)


def _segments(layout: _Layout, by_id: Mapping[int, Node]) -> list[Html]:
    """Deterministic steps; a chain in which nothing parts is one straight line."""
    drawn = []
    for node in by_id.values():
        if node.stochastic or node.parent not in by_id:
            continue
        parent = by_id[node.parent]
        if (
            len(layout.children[parent.id]) == 1
            and not parent.stochastic
            and parent.parent in by_id
        ):
            continue  # inside a chain that was drawn from its first edge
        end = node
        while len(layout.children[end.id]) == 1 and not layout.children[end.id][0].stochastic:
            end = layout.children[end.id][0]
        drawn.append(element("path", d=_curve(layout, parent, end), class_="ode"))
    return drawn


def _curve(layout: _Layout, start: Node, end: Node) -> str:
    x0, y0, x1, y1 = (
        layout.xs[start.step],
        layout.ys[start.id],
        layout.xs[end.step],
        layout.ys[end.id],
    )
    if abs(y0 - y1) < 0.01:
        return f"M{x0:.1f} {y0:.1f}H{x1:.1f}"
    middle = x0 + (x1 - x0) * 0.45
    return f"M{x0:.1f} {y0:.1f}C{middle:.1f} {y0:.1f} {middle:.1f} {y1:.1f} {x1:.1f} {y1:.1f}"


def _edge(layout: _Layout, node: Node, parent: Node) -> Html:
    """A sampled edge, coloured and as thick as its advantage is large, with the number near its end."""
    advantage = node.advantage
    strength = abs(advantage or 0.0) / layout.scale
    side = (
        "none"
        if advantage is None
        else "positive"
        if advantage > 0
        else "negative"
        if advantage < 0
        else "zero"
    )
    curve = _curve(layout, parent, node)
    number = "–" if advantage is None else signed(advantage)
    words = (
        f"step {node.step - 1} → {node.step}\nadvantage {show(advantage)}\nvalue {show(node.value)}"
    )
    if node.weight is not None:
        words += f"\nweight in its parent's value {show(node.weight)}"
    only = (
        len(layout.children[parent.id]) == 1 and parent.stochastic and parent.advantage == advantage
    )
    x = layout.xs[node.step] - (22 if _pill(layout, node) else 7)
    # On the side that the curve does not come from, or it would run through the number.
    y = layout.ys[node.id] + (14 if layout.ys[node.id] > layout.ys[parent.id] + 1 else -5)
    label = element("text", number, x=x, y=y, class_=f"number {side}")
    return element(
        "g",
        element("title", words),
        element("path", d=curve, class_="touch"),
        element(
            "path",
            d=curve,
            class_=f"sde {side}",
            stroke_width=1.4 + 3 * strength,
            opacity=0.45 + 0.55 * strength,
        ),
        *(() if only else (label,)),  # along a chain the number is the same: once is enough
    )


def _pill(layout: _Layout, node: Node) -> bool:
    return node.value is not None and len(layout.children[node.id]) > 1


def _branch(layout: _Layout, node: Node) -> Html:
    """A branching point as a pill with its value in it, a bare root as a ring."""
    x, y = layout.xs[node.step], layout.ys[node.id]
    words = f"after {node.step} steps\nvalue {show(node.value)}\n{len(layout.children[node.id])} branches"
    if node.value is None or not _pill(layout, node):
        return element(
            "g", element("title", words), element("circle", cx=x, cy=y, r=4, class_="branch")
        )
    box = element("rect", x=x - 17, y=y - 8.5, width=34, height=17, rx=8.5, class_="branch")
    number = element("text", f"{node.value:.2f}".replace("-", "−"), x=x, y=y + 3.8, class_="value")
    return element("g", element("title", words), box, number)


def _leaves(layout: _Layout, leaves: list[Node]) -> list[Html]:
    scores = [node.score for node in leaves if node.score is not None]
    low, high = (min(scores), max(scores)) if scores else (0.0, 0.0)
    return [_leaf(layout, node, low, high) for node in leaves]


def _leaf(layout: _Layout, node: Node, low: float, high: float) -> Html:
    """A finished picture with its reward, and a bar that places it between the worst and the best leaf."""
    side, y = layout.picture, layout.ys[node.id]
    x = _WIDTH - _SCORE - side
    box = {"x": x, "y": y - side / 2, "width": side, "height": side}
    parts = [element("title", f"leaf {node.id}\nreward {show(node.score)}")]
    if layout.xs[node.step] < x - 15:  # a branch that ended early
        parts.append(
            element("path", d=f"M{layout.xs[node.step]:.1f} {y:.1f}H{x:.1f}", class_="early")
        )
    if node.picture and node.picture.uri:
        pixels = "pixels" if node.picture.small else None
        parts.append(element("image", href=node.picture.uri, class_=pixels, **box))
        parts.append(element("rect", rx=2, class_="frame", **box))
    else:
        parts.append(element("rect", rx=2, class_="absent", **box))
    if node.score is not None:
        best = "score best" if node.score == high > low else "score"
        width = (_SCORE - 52) * ((node.score - low) / (high - low) if high > low else 0.0)
        number = f"{node.score:.2f}".replace("-", "−")
        parts.append(element("text", number, x=x + side + 44, y=y + 4, class_=best))
        parts.append(
            element(
                "rect",
                x=x + side + 50,
                y=y - 3,
                width=max(width, 1.5),
                height=6,
                rx=1.5,
                class_=best,
            )
        )
    return element("g", *parts, class_="leaf")
