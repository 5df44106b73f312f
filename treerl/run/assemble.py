"""Makes a session of a configuration: model, environment, rewards, algorithm and trainer."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from treerl import registry
from treerl.backbone import lora
from treerl.backbone.compiled import compile_blocks
from treerl.backbone.contract import Backbone
from treerl.backbone.env import BackboneEnv, EnvSettings
from treerl.backbone.lora import Trainable
from treerl.config.algorithm import algorithm_of
from treerl.config.resolve import resolve
from treerl.config.schema import Config
from treerl.engine.algorithm import Algorithm
from treerl.engine.task import Task
from treerl.engine.trainer import Trainer
from treerl.errors import InputError
from treerl.reward.build import Scoring, build_rewards
from treerl.reward.rewards import Rewards
from treerl.run.plan import plan_of
from treerl.run.quiet import quiet
from treerl.run.session import Session
from treerl.run.shard import cutter
from treerl.run.tasks import checked
from treerl.run.world import World


def assemble(
    config: Config | Path | str | None = None,
    settings: Mapping[str, object] | None = None,
    allow_plugins: bool = False,
) -> Session:
    """A session of a run file, or of the defaults, with some settings changed by dotted path.

        session = treerl.assemble("run.yaml", {"train.iterations": 20})

    `InputError` names every setting that is wrong. Classes in files of your own, as in
    `{"kernel": "./mine.py:Mine"}`, are run only where `allow_plugins` says so.
    """
    if not isinstance(config, Config):
        file = None if config is None else Path(config)
        config = resolve(file, settings or {}, [], allow_plugins)
    elif settings:
        raise InputError("assemble: expected settings with a run file only, got a Config and some")
    return build(config)


def build(
    config: Config,
    check_interrupt: Callable[[], None] = lambda: None,
    world: World | None = None,
) -> Session:
    """The session that a configuration describes; whatever it lacks is said before it is loaded.

    In a `world` of several processes `check_interrupt` is called by all at the same points.
    """
    world = world or World()
    quiet()
    algorithm = algorithm_of(config)
    plan = plan_of(config, algorithm)
    tasks, heldout = checked(config)
    device = device_of(config, world)
    cut = cutter(world, device) if config.parallel.shard else None
    rewards, watched = _available(config, [*tasks, *heldout], check_interrupt, world)
    with _closed_on_error(rewards, watched):
        backbone = _backbone(config, device, world)
        backbone.validate_tasks([*tasks, *heldout])
        env = env_of(config, backbone, algorithm)
        for spec in plan.support:
            env.validate_stds(spec.stochastic)
        optimizer = _optimizer(config, backbone, algorithm, cut)
        backbone.move(device)
    trainer = Trainer(
        env=env,
        rewards=rewards,
        algorithm=algorithm,
        optimizer=optimizer,
        micro_batch_size=config.train.micro_batch_size,
        seed=config.seed,
        max_grad_norm=config.train.max_grad_norm,
        weight_sets=lora.weight_sets(backbone),
        check_interrupt=check_interrupt,
        peers=world,
        iterations=config.train.iterations,
    )
    return Session(
        config=config,
        algorithm=algorithm,
        plan=plan,
        tasks=tuple(tasks),
        heldout=tuple(heldout),
        backbone=backbone,
        env=env,
        rewards=rewards,
        watched=watched,
        trainer=trainer,
    )


@contextmanager
def _closed_on_error(*built: Rewards | None) -> Iterator[None]:
    """Ends the workers of rewards when the rest fails: they would wait for what never comes."""
    try:
        yield
    except BaseException:
        for rewards in built:
            if rewards is not None:
                rewards.close()
        raise


def make_env(config: Config) -> BackboneEnv:
    """The environment of a configuration alone: nothing is trained, nothing is scored."""
    quiet()
    return env_of(config, _backbone(config, device_of(config)), algorithm_of(config))


def _nothing() -> None:
    return


def device_of(config: Config, world: World | None = None) -> torch.device:
    """The device that the configuration names, tried; `InputError` when it cannot be used.

    Each process of a `world` has a GPU of its own.
    """
    name = str(config.backbone.params.get("device", "auto"))
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and world is not None and world.size > 1:
        name = f"cuda:{world.local_rank}"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"backbone.device: {name} cannot be used: {reason}") from error
    if device.type == "cuda":
        # cuDNN's attention breaks FLUX's backward (illegal memory access, seen with torch 2.11)
        torch.backends.cuda.enable_cudnn_sdp(False)
    return device


def _available(
    config: Config, tasks: list[Task], check_interrupt: Callable[[], None], world: World
) -> tuple[Rewards, Rewards | None]:
    """The rewards, trained and watched; whatever a run lacks is said at once."""
    missing = []
    family = registry.load("backbones", config.backbone.name)
    try:
        family.check_available(config.backbone.build())
    except InputError as error:
        missing.append(str(error))
    tree = config.tree
    leaps = max(tree.tail_stride, tree.tail_order, *tree.granularities) > 1
    if leaps and not registry.load("envs", config.env.name).leaps:
        missing.append(
            f"tree.tail_stride: expected 1, tail_order 1 and no granularities, as the environment "
            f"{config.env.name} takes every step, got {tree.tail_stride}, {tree.tail_order} and "
            f"{list(tree.granularities)}"
        )
    # the calls of a reward differ from process to process: there all wait for the next common point
    check = check_interrupt if world.size == 1 else _nothing
    scoring = Scoring(**dict(config.scoring))
    built: list[Rewards] = []
    for path, settings in (("rewards", config.rewards), ("watch", config.watch)):
        specs = {name: setting.spec() for name, setting in settings.items()}
        try:
            rewards = build_rewards(specs, scoring, family.modality, check)
            built.append(rewards)
            rewards.validate_tasks(tasks)
        except InputError as error:
            missing.append(str(error).replace("rewards.", f"{path}.", 1))
    if missing:
        for rewards in built:
            rewards.close()
        raise InputError("\n".join(missing))
    return built[0], built[1] if config.watch else None


def _backbone(config: Config, device: torch.device, world: World | None = None) -> Backbone:
    """The model on its device, or on the CPU where it is to be cut, as it need not fit whole."""
    world = world or World()
    family = registry.load("backbones", config.backbone.name)
    place = torch.device("cpu") if world.sharded else device
    backbone: Backbone = family.load(config.backbone.build(), place)
    backbone.peers = world
    return backbone


def env_of(config: Config, backbone: Backbone, algorithm: Algorithm) -> BackboneEnv:
    """The environment of a model that is there already."""
    walk = config.env
    settings = EnvSettings(
        steps=walk.steps,
        guidance=walk.guidance,
        latent_dtype=walk.latent_dtype,
        latent_device=walk.latent_device,
        rows=config.train.micro_batch_size,
    )
    env: BackboneEnv = registry.load("envs", walk.name).make(backbone, algorithm.kernel, settings)
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


def _optimizer(
    config: Config,
    backbone: Backbone,
    algorithm: Algorithm,
    cut: Callable[[nn.Module], None] | None,
) -> torch.optim.Optimizer:
    train = config.train
    start = config.backbone.params.get("adapter")
    parameters = lora.attach(
        backbone,
        trainable_of(config),
        Path(start) if start else None,
        config.seed,
        keep_reference=algorithm.objective.weight_set == "start",
        cut=cut,
        teacher=Path(train.teacher) if train.teacher else None,
    )
    compile_blocks(backbone, config.backbone.params.get("compile", "auto"), cut is not None)
    return torch.optim.AdamW(
        lora.named(backbone, parameters),
        lr=train.learning_rate,
        weight_decay=train.weight_decay,
        eps=train.adam_epsilon,
        fused=True,
    )
