"""The flags that commands share, as one signature."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from treerl.errors import InputError, shown

if TYPE_CHECKING:
    from treerl.config.schema import Config

Model = Annotated[
    str | None,
    typer.Option(
        metavar="DIR_OR_ID",
        help="Hub id, folder, tiny, miniature or random; by default the published model.",
    ),
]
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
Backbone = Annotated[
    str | None, typer.Option(metavar="NAME", help="Model family (treerl list backbones).")
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

Resume = Annotated[
    str | None,
    typer.Option(
        metavar="DIR",
        help="Go on with the run in DIR, its settings below those given here; `auto` with --output "
        "goes on if that folder holds a run, and else begins one.",
    ),
]

Memory = Annotated[
    bool, typer.Option("--memory", help="Count the peak memory by phase, too (takes seconds).")
]
For = Annotated[
    str | None,
    typer.Option(
        "--for",
        metavar="SIZE",
        help="Choose train.micro_batch_size for a card of 24GB or 80GiB, or say what to change.",
    ),
]
Measure = Annotated[
    bool,
    typer.Option("--measure", help="Load the model, time its phases here, and predict hours."),
]

Devices = Annotated[
    int,
    typer.Option(
        min=1,
        metavar="N",
        help="Train in N processes of this machine, each on a GPU of its own if there are any.",
    ),
]


@dataclass(frozen=True)
class Given:
    """What a command line says of settings, before anything is resolved."""

    file: Path | None
    flags: Mapping[str, object]  # by dotted path, None for one that was not given
    sets: tuple[str, ...]
    allow_plugins: bool

    def config(
        self, flags: Mapping[str, object] | None = None, sets: Sequence[str] = ()
    ) -> "Config":
        """The configuration, with these flags and settings over it."""
        from treerl.config.resolve import resolve

        every = {**self.flags, **(flags or {})}
        return resolve(self.file, every, [*self.sets, *sets], self.allow_plugins)


def given(
    backbone: Backbone = None,
    model: Model = None,
    reward: Reward = None,
    watch: Watch = None,
    recipe: Recipe = None,
    prompts: Prompts = None,
    output: Output = None,
    config: File = None,
    set_: Set = None,
    allow_plugins: Allow = False,
) -> Given:
    """The flags of settings."""
    from treerl.config.resolve import parse_rewards

    flags: dict[str, Any] = {
        "backbone.name": backbone,
        "backbone.model": model,
        "rewards": parse_rewards(reward) if reward else None,
        "watch": watch or None,
        "recipe": recipe,
        "data.train": str(prompts) if prompts else None,
        "output": str(output) if output else None,
    }
    return Given(config, flags, tuple(set_ or ()), allow_plugins)


def takes_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command, whose first argument is a `Config`, all the flags of settings."""

    def with_config(first: Given, **values: Any) -> None:
        command(first.config(), **values)

    return _with_flags(command, with_config)


def takes_given(*without: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command, whose first argument is `Given`, the flags of settings but for some."""
    return lambda command: _with_flags(command, command, without)


def _with_flags(
    command: Callable[..., None], call: Callable[..., None], without: Sequence[str] = ()
) -> Callable[..., None]:
    """The command with the flags of settings before its own."""
    shared = dict(inspect.signature(given).parameters)
    for name in without:
        del shared[name]
    _, *parameters = inspect.signature(command).parameters.values()
    named = [parameter.name for parameter in parameters]

    def with_flags(**values: Any) -> None:
        flags = {name: values[name] for name in shared}
        resume = values.get("resume")
        if resume not in (None, "auto"):
            if flags["output"] is not None:
                raise InputError("--output: expected none, as --resume DIR names the run's folder")
            flags["config"] = flags["config"] or _settings_of(Path(resume))
        call(given(**flags), **{name: values[name] for name in named})

    others = [parameter for parameter in parameters if parameter.name not in shared]
    needed = [parameter for parameter in others if parameter.default is inspect.Parameter.empty]
    others = [parameter for parameter in others if parameter not in needed]
    with_flags.__name__ = command.__name__
    with_flags.__doc__ = command.__doc__
    with_flags.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [*needed, *shared.values(), *others]
    )
    return with_flags


def _settings_of(folder: Path) -> Path:
    """The run file in the folder of a run that is to go on."""
    file = folder / "config.yaml"
    if not file.is_file():
        raise InputError(f"--resume: {shown(folder)}: expected a run folder, got no config.yaml")
    return file
