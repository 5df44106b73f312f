"""Who may import whom: the rooms of the house, read from source and never imported."""

import ast
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from importlib.util import resolve_name

# from the ground up; a room may import what stands below it, and of its own layer itself alone
LAYERS = (
    {"errors"},
    {"registry"},
    {"engine"},
    {"backbone", "reward", "toy", "recipes"},
    {"backbones", "rewards", "envs"},
    {"config"},
    {"run"},
    {"report", "check", "gym"},
    {"bench"},
    {"cli"},
    {"__init__", "__main__"},
)
TOP = len(LAYERS)
HEIGHT = {room: height for height, rooms in enumerate(LAYERS) for room in rooms}

# rooms that import less than their layer allows
ONLY = {
    "registry": {"errors"},
    "engine": {"errors"},
    "toy": {"errors", "engine"},
    "recipes": {"errors", "engine"},
    "gym": {"errors", "engine", "backbone", "run"},
}
SHELVES = {"backbones", "rewards", "envs"}  # reached through the registry alone

# (who, whom): why it may; an entry that is not needed any more fails a test
UPWARDS: dict[tuple[str, str], str] = {}
IN_CIRCLES = {
    ("treerl.engine.component", "treerl.engine.step"): (
        "the type of what a component observes; nothing is imported when the program runs"
    ),
}

Sources = Mapping[str, str]  # module name: its source


def imported(module: str, source: str, is_package: bool = False) -> Iterator[str]:
    """Every name that a module imports, anywhere in it: in functions and for types alone, too.

    `from treerl.engine import noise` gives treerl.engine.noise.
    """
    package = module if is_package else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            name = "." * node.level + (node.module or "")
            base = resolve_name(name, package) if node.level else name
            yield from (f"{base}.{alias.name}" for alias in node.names)


def room(module: str) -> str:
    """The room of a module: treerl.engine.tree is in engine, treerl.cli is a room by itself."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def arrows(sources: Sources) -> Iterator[tuple[str, str]]:
    """(importer, imported) between modules of the project, the imported one as deep as it goes.

    `from treerl import registry` points at treerl.registry; `from treerl import Trainer`, a public
    name, points at the package `treerl` itself.
    """
    for module, source in sources.items():
        is_package = any(other.startswith(module + ".") for other in sources)
        targets = set()
        for name in imported(module, source, is_package):
            while name and name not in sources:
                name = name.rpartition(".")[0]
            targets.add(name)
        for target in sorted(targets - {module, ""}):
            yield module, target


def upward(sources: Sources) -> list[tuple[str, str]]:
    """Imports of a room that stands no lower than the importer's, but for its own."""
    wrong = []
    for module, target in arrows(sources):
        here = room(module)
        there = room(target)
        below = HEIGHT.get(there, TOP) < HEIGHT.get(here, 0) and there in ONLY.get(here, HEIGHT)
        plugged = there in SHELVES and here not in SHELVES
        if here != there and (not below or plugged) and (module, target) not in UPWARDS:
            wrong.append((module, target))
    return wrong


def circle(sources: Sources, by_room: bool = False) -> list[str]:
    """A circle of imports between modules, or between rooms; empty when there is none."""
    graph: dict[str, set[str]] = {}
    for module, target in arrows(sources):
        if (module, target) in IN_CIRCLES:
            continue
        here = room(module) if by_room else module
        there = room(target) if by_room else target
        if here != there:
            graph.setdefault(here, set()).add(there)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        nodes: list[str] = error.args[1]
        return nodes
    return []


def unneeded(sources: Sources) -> list[tuple[str, str]]:
    """Exceptions that nothing makes use of any more."""
    present = set(arrows(sources))
    return [pair for pair in (*UPWARDS, *IN_CIRCLES) if pair not in present]
