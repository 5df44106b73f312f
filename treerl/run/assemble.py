"""Makes a session of a configuration: model, environment, rewards, algorithm and trainer."""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import nn

from treerl import registry
from treerl.backbone import lora
from treerl.backbone.compiled import compile_blocks
from treerl.backbone.contract import Backbone
from treerl.backbone.env import BackboneEnv
from treerl.config.algorithm import algorithm_of
from treerl.config.resolve import resolve
from treerl.config.schema import Config
from treerl.engine.algorithm import Algorithm
from treerl.engine.trainer import Trainer
from treerl.errors import InputError
from treerl.run.needs import (
    available,
    closed_on_error,
    env_of,
    fitted,
    nothing,
    start_of,
    teacher_of,
    trainable_of,
)
from treerl.run.plan import plan_of
from treerl.run.quiet import quiet
from treerl.run.session import Session
from treerl.run.shard import cutter
from treerl.run.tasks import read_tasks
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
    tasks, heldout = read_tasks(config)
    every = [*tasks, *heldout]
    device = device_of(config, world)
    cut = cutter(world, device) if config.parallel.shard else None
    # the calls of a reward differ from process to process: there all wait for the next common point
    check = check_interrupt if world.size == 1 else nothing
    rewards, watched = available(config, every, check_interrupt=check)
    with closed_on_error((rewards, watched)):
        backbone = _backbone(config, device, world)
        env = fitted(config, backbone, plan, every)
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


def make_env(config: Config) -> BackboneEnv:
    """The environment of a configuration alone: nothing is trained, nothing is scored."""
    quiet()
    plan = plan_of(config, algorithm_of(config))
    return env_of(config, _backbone(config, device_of(config)), plan)


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


def _backbone(config: Config, device: torch.device, world: World | None = None) -> Backbone:
    """The model on its device, or on the CPU where it is to be cut, as it need not fit whole."""
    world = world or World()
    family = registry.load("backbones", config.backbone.name)
    place = torch.device("cpu") if world.sharded else device
    backbone: Backbone = family.load(config.backbone.build(), place)
    backbone.peers = world
    return backbone


def _optimizer(
    config: Config,
    backbone: Backbone,
    algorithm: Algorithm,
    cut: Callable[[nn.Module], None] | None,
) -> torch.optim.Optimizer:
    train = config.train
    parameters = lora.attach(
        backbone,
        trainable_of(config),
        start_of(config),
        config.seed,
        keep_reference=algorithm.objective.weight_set == "start",
        cut=cut,
        teacher=teacher_of(config),
    )
    compile_blocks(backbone, config.backbone.params.get("compile", "auto"), cut is not None)
    return torch.optim.AdamW(
        lora.named(backbone, parameters),
        lr=train.learning_rate,
        weight_decay=train.weight_decay,
        eps=train.adam_epsilon,
        fused=True,
    )
