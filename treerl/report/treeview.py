"""Lays out the trees of a prompt to be drawn: noise at the left, scored images at the right."""

from dataclasses import dataclass, field

from treerl.report.charts import decimal, show, signed
from treerl.report.embed import Embedded, Embedder
from treerl.run.files import TreeFile, TreeNode

WIDTH = 660.0
_HEAD = 52.0  # room above the drawing for the step numbers
_LEFT = 22.0
_SCORE = 84.0  # room at the right for a leaf's reward


@dataclass(frozen=True)
class Column:
    """A denoising step."""

    x: float
    width: float
    label: str
    sampled: bool


@dataclass(frozen=True)
class Edge:
    """A sampled edge; `label` is empty where the number stands elsewhere."""

    path: str
    sign: str  # positive, negative or zero
    strength: float  # 0 to 1
    trained: bool
    label: str
    x: float
    y: float
    words: str


@dataclass(frozen=True)
class Branch:
    """A root or a node with several children, and its value."""

    x: float
    y: float
    value: str
    words: str


@dataclass(frozen=True)
class Leaf:
    """A finished sample; `bar` is its score between the tree's worst (0) and best (1)."""

    y: float
    image: Embedded | None
    score: float | None
    bar: float
    best: bool
    words: str


@dataclass
class Drawing:
    """Everything that is drawn of one file."""

    tree: TreeFile
    side: float  # of a leaf's image
    image_x: float
    scale: float  # the largest |advantage|
    height: float = 0.0
    columns: list[Column] = field(default_factory=list)
    chains: list[str] = field(default_factory=list)  # paths of deterministic steps
    edges: list[Edge] = field(default_factory=list)
    branches: list[Branch] = field(default_factory=list)
    leaves: list[Leaf] = field(default_factory=list)


class _Layout:
    """Where the nodes of a file stand."""

    def __init__(self, tree: TreeFile) -> None:
        self.tree = tree
        self.children: list[list[TreeNode]] = [[] for _ in tree.nodes]
        for node in tree.nodes:
            if node.parent != TreeFile.ROOT:
                self.children[node.parent].append(node)
        count = sum(not children for children in self.children)
        sides = ((9, 60.0), (16, 50.0), (32, 38.0))
        self.side = next((side for most, side in sides if count <= most), 26.0)
        self.xs = self._places()
        self.ys, self.height = self._rows()

    def _places(self) -> list[float]:
        """Where each state stands; sampled steps get wide columns, as something happens there."""
        sampled = {node.step - 1 for node in self.tree.nodes if node.stochastic}
        weights = [3.2 if step in sampled else 1.0 for step in range(self.tree.steps)]
        unit = (WIDTH - _LEFT - self.side - _SCORE - 12) / sum(weights)
        places = [_LEFT]
        for weight in weights:
            places.append(places[-1] + weight * unit)
        return places

    def _rows(self) -> tuple[list[float], float]:
        """Leaves one below the other, families apart; a parent in the middle of its children."""
        ys = [0.0] * len(self.tree.nodes)
        cursor = _HEAD - 6
        family: int | None = None
        stack = [(node, node.id) for node in self.tree.nodes if node.parent == TreeFile.ROOT][::-1]
        chains = all(len(children) < 2 for children in self.children)
        while stack:
            node, parting = stack.pop()
            children = self.children[node.id]
            if not children:
                if family not in (None, parting) and not chains:
                    cursor += 10
                ys[node.id] = cursor + self.side / 2 + 3
                family = parting
                cursor += self.side + 6
            parting = node.id if len(children) > 1 else parting
            stack.extend((child, parting) for child in reversed(children))
        for node in reversed(self.tree.nodes):
            if children := self.children[node.id]:
                ys[node.id] = (ys[children[0].id] + ys[children[-1].id]) / 2
        return ys, cursor + 8

    def path(self, start: TreeNode, end: TreeNode) -> str:
        left = self.xs[start.step]
        right = self.xs[end.step]
        y0 = self.ys[start.id]
        y1 = self.ys[end.id]
        middle = left + (right - left) * 0.45
        curve = f"C{middle:.1f} {y0:.1f} {middle:.1f} {y1:.1f} {right:.1f} {y1:.1f}"
        return f"M{left:.1f} {y0:.1f}" + (f"H{right:.1f}" if abs(y0 - y1) < 0.01 else curve)


def lay_out(tree: TreeFile, images: Embedder) -> Drawing:
    """The drawing: grey lines are deterministic steps, coloured ones were sampled."""
    layout = _Layout(tree)
    scale = max((abs(node.advantage or 0.0) for node in tree.nodes), default=0.0) or 1.0
    drawing = Drawing(tree, layout.side, WIDTH - _SCORE - layout.side, scale, layout.height)
    drawing.columns = _columns(layout)
    scores = [node.score for node in tree.nodes if node.score is not None]
    for node in tree.nodes:
        children = layout.children[node.id]
        if node.parent != TreeFile.ROOT:
            parent = tree.nodes[node.parent]
            if node.stochastic:
                drawing.edges.append(_edge(layout, node, parent, scale))
            elif not _continues(layout, parent):
                drawing.chains.append(layout.path(parent, _end(layout, node)))
        if len(children) > 1 or node.parent == TreeFile.ROOT:
            words = f"after {node.step} steps\nvalue {show(node.value)}"
            value = "" if node.value is None or len(children) < 2 else decimal(node.value)
            x = layout.xs[node.step]
            drawing.branches.append(Branch(x, layout.ys[node.id], value, words))
        if not children:
            drawing.leaves.append(_leaf(node, layout, scores, images))
    return drawing


def _columns(layout: _Layout) -> list[Column]:
    sampled = {node.step - 1 for node in layout.tree.nodes if node.stochastic}
    columns = []
    for step in range(layout.tree.steps):
        width = layout.xs[step + 1] - layout.xs[step]
        label = str(step) if width >= 16 or step % 5 == 0 else ""
        columns.append(Column(layout.xs[step], width, label, step in sampled))
    return columns


def _continues(layout: _Layout, node: TreeNode) -> bool:
    """Whether a deterministic step from here lies inside a chain, which is drawn as one line."""
    inner = node.parent != TreeFile.ROOT
    return inner and not node.stochastic and len(layout.children[node.id]) == 1


def _end(layout: _Layout, node: TreeNode) -> TreeNode:
    while len(layout.children[node.id]) == 1 and not layout.children[node.id][0].stochastic:
        node = layout.children[node.id][0]
    return node


def _edge(layout: _Layout, node: TreeNode, parent: TreeNode, scale: float) -> Edge:
    advantage = node.advantage or 0.0
    sign = "zero"
    if advantage != 0:
        sign = "positive" if advantage > 0 else "negative"
    chain = len(layout.children[parent.id]) == 1 and parent.stochastic
    repeated = chain and parent.advantage == node.advantage  # along a chain, once is enough
    x = layout.xs[node.step] - (22 if len(layout.children[node.id]) > 1 else 7)
    y = layout.ys[node.id]
    # on the side that the curve does not come from, or it would run through the number
    y += 14 if y > layout.ys[parent.id] + 1 else -5
    words = f"step {parent.step} → {node.step}\nadvantage {show(node.advantage)}\n"
    words += f"value {show(node.value)}"
    if not node.trained:
        words += "\nleft out of the update"
    label = "" if repeated else signed(advantage)
    path = layout.path(parent, node)
    return Edge(path, sign, abs(advantage) / scale, node.trained, label, x, y, words)


def _leaf(node: TreeNode, layout: _Layout, scores: list[float], images: Embedder) -> Leaf:
    span = max(scores) - min(scores) if scores else 0.0
    bar = 0.0
    if node.score is not None and span > 0:
        bar = (node.score - min(scores)) / span
    image = images.embed(node.image, 160)
    words = f"reward {show(node.score)}"
    return Leaf(layout.ys[node.id], image, node.score, bar, bar == 1, words)
