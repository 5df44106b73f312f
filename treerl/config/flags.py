"""The flags that commands share."""

from pathlib import Path
from typing import Annotated

import typer

Backbone = Annotated[
    str | None, typer.Option(metavar="NAME", help="Model family (treerl list backbones).")
]
Model = Annotated[
    str | None,
    typer.Option(
        metavar="DIR_OR_ID",
        help="Hub id, folder, tiny, miniature or random; by default the backbone's published model.",
    ),
]
Reward = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME[=WEIGHT]", help="Reward; repeat it for several (treerl list rewards)."
    ),
]
Watch = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME", help="Reward that is only watched: hacking shows there. Repeat it."
    ),
]
Recipe = Annotated[
    str | None, typer.Option(metavar="NAME", help="Published algorithm (treerl list recipes).")
]
Prompts = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Prompts: .txt, .jsonl or .csv.")
]
Output = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Run folder; by default the next runs/RECIPE-NNNN."),
]
File = Annotated[Path | None, typer.Option("--config", metavar="FILE", help="Run file (YAML).")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="dotted.path=value", help="Change one setting; may be repeated."),
]
Allow = Annotated[
    bool,
    typer.Option(
        "--allow-plugins",
        help="Let settings name classes in files of your own (their code is run).",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
