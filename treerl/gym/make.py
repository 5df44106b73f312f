"""What `gymnasium.make` and `make_vec` call: a session's environment and rewards, by settings."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from treerl.backbone.env import BackboneEnv
from treerl.engine.task import Task
from treerl.errors import InputError, shorten
from treerl.gym.env import DenoisingEnv
from treerl.gym.vector import VectorDenoisingEnv
from treerl.run.assemble import assemble
from treerl.run.session import Session

Settings = Mapping[str, object]


def make(
    settings: Settings | None = None,
    config: Path | str | None = None,
    tasks: str | Sequence[str] = "train",
    deterministic: Iterable[int] | None = None,
    render_mode: str | None = None,
    allow_plugins: bool = False,
) -> DenoisingEnv:
    """The environment of a run file, or of the defaults, with some settings changed.

        gymnasium.make("treerl/Denoising-v0", settings={"backbone.name": "flux"})

    Its tasks are those that a run trains on, with `tasks="heldout"` those that it evaluates on, or
    prompts of your own. `deterministic` steps follow the mean; by default the last.
    """
    session = assemble(config, settings, allow_plugins)
    with _closed_on_error(session):
        env = _with_tasks(session, tasks)
        return DenoisingEnv(env, session.rewards, deterministic, render_mode, session.close)


def make_vector(
    num_envs: int = 1,
    settings: Settings | None = None,
    config: Path | str | None = None,
    tasks: str | Sequence[str] = "train",
    deterministic: Iterable[int] | None = None,
    render_mode: str | None = None,
    allow_plugins: bool = False,
) -> VectorDenoisingEnv:
    """The same with `num_envs` latents, which share one model and one forward a step."""
    session = assemble(config, settings, allow_plugins)
    with _closed_on_error(session):
        env = _with_tasks(session, tasks)
        return VectorDenoisingEnv(
            env, session.rewards, num_envs, deterministic, render_mode, session.close
        )


def _with_tasks(session: Session, tasks: str | Sequence[str]) -> BackboneEnv:
    named = {"train": session.tasks, "heldout": session.heldout}
    if isinstance(tasks, str) and tasks in named:
        return session.env.with_tasks(named[tasks])
    listed = list(tasks) if isinstance(tasks, Sequence) and not isinstance(tasks, str) else []
    if not listed or not all(isinstance(task, str | Task) for task in listed):
        expected = "train, heldout or a list of prompts"
        raise InputError(f"tasks: expected {expected}, got {shorten(tasks)}")
    return session.env.with_tasks(listed)


@contextmanager
def _closed_on_error(session: Session) -> Iterator[None]:
    """Ends the workers of rewards where no environment will be there to close them."""
    try:
        yield
    except BaseException:
        session.close()
        raise
