"""How dense the code is: a table of the figures by which the house compares itself with others.

    python scripts/measure_style.py                       treerl, its engine and the shelves
    python scripts/measure_style.py FOLDER [FOLDER ...]   any other

Shares are of code lines (neither blank, nor documentation, nor a comment alone); the counts of
tuple assignments, comprehensions and ternaries are per 1,000 lines that are not blank.
"""

import ast
import io
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parent.parent
DEFAULT = ("treerl", "treerl/engine", "backbones", "rewards", "envs")
WIDTH = 100
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True)
class Style:
    """What is counted in one file."""

    lines: int  # that are not blank
    doc: int  # lines of docstrings
    comment: int  # lines with nothing but a comment
    trailing: int  # comments behind code
    tuples: int  # a, b = x, y
    comprehensions: int
    ternaries: int
    wide: int  # lines of more than 100 columns
    length: int  # of the file
    functions: tuple[int, ...]  # lengths

    @property
    def code(self) -> int:
        """Lines of code."""
        return self.lines - self.doc - self.comment


def measure(source: str) -> Style:
    """The figures of one file."""
    tree = ast.parse(source)
    nodes = list(ast.walk(tree))
    lines = source.splitlines()
    filled = [line for line in lines if line.strip()]
    comments = list(_comments(source))
    alone = sum(lines[row - 1].lstrip().startswith("#") for row in comments)
    return Style(
        lines=len(filled),
        doc=sum(_doc_lines(node, lines) for node in nodes),
        comment=alone,
        trailing=len(comments) - alone,
        tuples=sum(_binds_two_ideas(node) for node in nodes),
        comprehensions=sum(isinstance(node, COMPREHENSIONS) for node in nodes),
        ternaries=sum(isinstance(node, ast.IfExp) for node in nodes),
        wide=sum(len(line) > WIDTH for line in lines),
        length=len(lines),
        functions=tuple(_lengths(nodes)),
    )


def row(name: str, styles: list[Style]) -> str:
    """One line of the table."""
    lines = sum(style.lines for style in styles)
    code = sum(style.code for style in styles)
    sizes = sorted(style.length for style in styles)
    functions = sorted(length for style in styles for length in style.functions)
    comments = sum(style.comment + style.trailing for style in styles)
    tail = functions[int(0.95 * (len(functions) - 1))]
    cells = [
        f"{name:<16}",
        f"{len(styles):>5}",
        f"{lines:>6}",
        f"{median(sizes):>6.0f}/{sizes[-1]}",
        f"{median(functions):>6.0f}/{tail}/{functions[-1]}",
        f"{sum(style.doc for style in styles) / code:>7.0%}",
        f"{comments / code:>9.0%}",
    ]
    for field in ("tuples", "comprehensions", "ternaries"):
        cells.append(f"{1000 * sum(getattr(style, field) for style in styles) / lines:>7.1f}")
    cells.append(f"{sum(style.wide for style in styles) / lines:>7.1%}")
    return " ".join(cells)


HEADER = (
    f"{'':<16} files  lines file med/max  fn med/p95/max   doc  comments  tuples   comps  "
    "ternary   >100"
)


def main(folders: list[str]) -> None:
    """Print the table."""
    print(HEADER)
    for folder in folders:
        paths = sorted((ROOT / folder).rglob("*.py"))
        styles = [measure(path.read_text(encoding="utf-8")) for path in paths]
        styles = [style for style in styles if style.lines]
        print(row(folder, styles))


def _comments(source: str) -> Iterator[int]:
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0]


def _doc_lines(node: ast.AST, lines: list[str]) -> int:
    if not isinstance(node, DOCUMENTED) or ast.get_docstring(node) is None:
        return 0
    text = node.body[0]
    block = lines[text.lineno - 1 : text.end_lineno]
    return sum(bool(line.strip()) for line in block)


def _binds_two_ideas(node: ast.AST) -> bool:
    if not isinstance(node, ast.Assign) or not isinstance(node.value, ast.Tuple):
        return False
    return any(isinstance(target, ast.Tuple) for target in node.targets)


def _lengths(nodes: list[ast.AST]) -> Iterator[int]:
    for node in nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield (node.end_lineno or node.lineno) - node.lineno + 1


if __name__ == "__main__":
    main(sys.argv[1:] or list(DEFAULT))
