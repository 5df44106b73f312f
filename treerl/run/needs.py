"""What a run needs: asked by a run before it loads a model, and by a plan, which loads none."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from treerl import registry
from treerl.backbone import loading, lora
from treerl.backbone.contract import Backbone
from treerl.backbone.env import BackboneEnv, EnvSettings
from treerl.backbone.lora import Trainable
from treerl.backbone.parts import PipelineParts
from treerl.backbone.unloaded import META, unloaded
from treerl.config.schema import Config
from treerl.engine.task import Task
from treerl.errors import InputError, shown
from treerl.reward.build import Scoring, build_rewards
from treerl.reward.rewards import Rewards
from treerl.run.plan import Plan
from treerl.run.tasks import read_tasks


def nothing() -> None:
    """Nobody interrupts."""


def available(
    config: Config,
    tasks: Sequence[Task],
    load: bool = True,
    check_interrupt: Callable[[], None] = nothing,
) -> tuple[Rewards, Rewards | None]:
    """The rewards, trained and watched; `InputError` says at once whatever is not to be had.

    Without `load` no weights are read, and neither a server nor the hub is asked.
    """
    missing = [*_missing_model(config, load), *_missing_leaps(config)]
    family = registry.load("backbones", config.backbone.name)
    scoring = Scoring(**dict(config.scoring))
    built: dict[str, Rewards] = {}
    with closed_on_error(built.values()):
        for path, settings in (("rewards", config.rewards), ("watch", config.watch)):
            specs = {name: setting.spec() for name, setting in settings.items()}
            try:
                built[path] = build_rewards(
                    specs, scoring, family.modality, check_interrupt, connect=load
                )
                built[path].validate_tasks(tasks)
            except InputError as error:
                missing += _lines(error, path)
        if not missing and load:  # the slow part, when nothing else is wrong
            for path, rewards in built.items():
                try:
                    rewards.load()
                except InputError as error:
                    missing += _lines(error, path)
        if missing:
            raise InputError("\n".join(missing))
    return built["rewards"], built["watch"] if config.watch else None


@contextmanager
def closed_on_error(built: Iterable[Rewards | None]) -> Iterator[None]:
    """Ends the workers of rewards when the rest fails: they would wait for what never comes."""
    try:
        yield
    except BaseException:
        for rewards in built:
            if rewards is not None:
                rewards.close()
        raise


def foresee(config: Config, plan: Plan) -> None:
    """`InputError` for whatever a run would refuse that can be known without loading anything."""
    tasks, heldout = read_tasks(config)
    rewards, watched = available(config, [*tasks, *heldout], load=False)
    for asked in (rewards, watched):
        if asked is not None:
            asked.close()
    family = registry.load("backbones", config.backbone.name)
    settings = config.backbone.build()
    # what others need is known by loading them alone
    if issubclass(family, PipelineParts) and loading.is_at_hand(family, settings):
        backbone = unloaded(family, settings)
        fitted(config, backbone, plan, [*tasks, *heldout])
        with META:
            lora.attach(
                backbone,
                trainable_of(config),
                start_of(config),
                config.seed,
                teacher=teacher_of(config),
            )


def fitted(config: Config, backbone: Backbone, plan: Plan, tasks: Sequence[Task]) -> BackboneEnv:
    """The environment of a model that is there, which takes all tasks and walks every tree."""
    backbone.validate_tasks(tasks)
    env = env_of(config, backbone, plan)
    for spec in plan.support:
        env.validate_stds(spec.stochastic)
    return env


def env_of(config: Config, backbone: Backbone, plan: Plan) -> BackboneEnv:
    """The environment of a model that is there."""
    walk = config.env
    settings = EnvSettings(
        steps=walk.steps,
        guidance=walk.guidance,
        latent_dtype=walk.latent_dtype,
        latent_device=walk.latent_device,
        rows=config.train.micro_batch_size,
    )
    kernel = plan.algorithm.kernel
    env: BackboneEnv = registry.load("envs", walk.name).make(backbone, kernel, settings)
    return env


def trainable_of(config: Config) -> Trainable:
    """What a configuration says about the weights that learn."""
    train = config.train
    quantized = config.backbone.params.get("quantize") is not None  # few bits would round it away
    return Trainable(
        mode=train.trainable,
        rank=train.lora_rank,
        alpha=train.lora_alpha,
        gradient_checkpointing=train.gradient_checkpointing,
        merge=train.merge_lora and not config.parallel.shard and not quantized,
    )


def start_of(config: Config) -> Path | None:
    """The folder of the trained weights that a run starts from."""
    folder = config.backbone.params.get("adapter")
    return Path(folder) if folder else None


def teacher_of(config: Config) -> Path | None:
    """The folder of the weights that an objective compares with."""
    return Path(config.train.teacher) if config.train.teacher else None


def _missing_model(config: Config, load: bool) -> list[str]:
    """Folders of weights that are not there, and a model that is not to be had."""
    missing = []
    named = {"backbone.adapter": start_of(config), "train.teacher": teacher_of(config)}
    for path, folder in named.items():
        if folder is not None and not folder.is_dir():
            missing.append(f"{path}: no such folder: {shown(folder)}")
    family = registry.load("backbones", config.backbone.name)
    settings = config.backbone.build()
    try:
        if load or not issubclass(family, PipelineParts):
            family.check_available(settings)
        else:  # a plan needs no package that only the run's machine must have
            loading.check_available(family, settings, ask_hub=False)
    except InputError as error:
        missing += _lines(error)
    return missing


def _missing_leaps(config: Config) -> list[str]:
    """Long moves of the tail, where the environment takes every step."""
    tree = config.tree
    leaps = max(tree.tail_stride, tree.tail_order, *tree.granularities) > 1
    if not leaps or registry.load("envs", config.env.name).leaps:
        return []
    return [
        f"tree.tail_stride: expected 1, tail_order 1 and no granularities, as the environment "
        f"{config.env.name} takes every step, got {tree.tail_stride}, {tree.tail_order} and "
        f"{list(tree.granularities)}"
    ]


def _lines(error: InputError, path: str = "rewards") -> list[str]:
    """What an error says, with the path of watched rewards where it is of one."""
    return [line.replace("rewards.", f"{path}.", 1) for line in str(error).split("\n")]
