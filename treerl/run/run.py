"""A run from beginning to end: load, evaluate, train, evaluate, and leave a folder that tells the story."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from treerl import registry
from treerl.backbone import lora
from treerl.backbone.contract import Backbone
from treerl.config.schema import Config
from treerl.engine import trainer
from treerl.engine.env import PromptedEnv
from treerl.engine.trainer import Step, Trainer
from treerl.errors import InputError, Stopped, TreerlError
from treerl.report import report
from treerl.reward.rewards import Rewards
from treerl.run import folder as record, tasks as prompts
from treerl.run.display import Display
from treerl.run.evaluate import Evaluation, evaluate
from treerl.run.plan import Counts, Plan
from treerl.run.scorers import found
from treerl.run.signals import Stop, watched
from treerl.run.watch import alarms

_DROWNS = 0.95  # share of the variance


@dataclass(frozen=True)
class _Story:
    """The run folder, and the manifest that grows in it."""

    folder: Path
    manifest: dict[str, Any]
    watch: list[Rewards] = field(default_factory=list)  # rewards that are only watched

    def save(self) -> None:
        record.write_json(self.folder / "manifest.json", self.manifest)

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            seconds = self.manifest["seconds"]
            seconds[phase] = round(seconds.get(phase, 0.0) + time.perf_counter() - began, 3)


def run(config: Config, console: Console) -> Path:
    """Train as configured; the run folder. Stopped or failed runs leave their folder, report and adapter as well."""
    if config.train.threads:
        torch.set_num_threads(config.train.threads)
    train, heldout = prompts.chosen(config)
    plan, where = Plan(config), device(config)
    story = _Story(record.choose(config), record.manifest(config, plan.table()["run"], where))
    with watched() as stop, Display(console, config.train.iterations) as display:
        if where.type == "cuda":
            # cuDNN's attention breaks FLUX's backward (illegal memory access, seen with torch 2.11)
            torch.backends.cuda.enable_cudnn_sdp(False)
        with story.timed("load"):
            rewards, watch = found(config, [*train, *heldout], stop.poll)
            story.watch.append(watch)
            backbone, env = load(config, plan, where, rewards)
            made = trainer.make(config, plan, backbone, env, stop.poll)
        record.create(story.folder, config)
        try:
            _introduce(display, story, made, len(train), len(heldout))
            _train(story, display, made, train, heldout, stop)
            story.manifest["status"] = "done"
        except TreerlError as error:
            story.manifest["status"] = "interrupted" if isinstance(error, Stopped) else "failed"
            story.manifest["error"] = str(error)
            raise
        finally:
            rewards.close()
            watch.close()
            _finish(story, display)
    return story.folder


def _train(
    story: _Story, display: Display, made: Trainer, train: list[str], heldout: list[str], stop: Stop
) -> None:
    """Evaluate, iterate, evaluate; whatever ends it, the adapter of what was done is kept."""
    config, before = made.config, _evaluate(story, display, made, heldout, "before")
    record.samples(story.folder, before, None)
    story.save()
    last: Step | None = None
    spent, steps = Counts(), 0
    try:
        for iteration in range(config.train.iterations):
            began = time.perf_counter()
            with story.timed("train"):
                last = made.iterate(iteration, train)
            spent, steps = spent + _work(last, len(config.rewards)), steps + config.train.updates
            story.manifest["spent"] = {
                "iterations": iteration + 1,
                **spent.plain(),
                "optimizer_steps": steps,
            }
            row = {
                "iteration": iteration + 1,
                **last.metrics,
                "seconds": round(time.perf_counter() - began, 3),
            }
            row |= _between(story, display, made, heldout, iteration, before)
            _warn(story, display, made, row, iteration)
            record.append(story.folder / "metrics.jsonl", row)
            display.iteration(row)
    finally:
        if last is not None:
            _keep(story, display, made)
            _draw_tree(story.folder, made, last, story.manifest["spent"]["iterations"])
        story.manifest["spent"]["seconds"] = story.manifest["seconds"].get("train", 0.0)
    after = _evaluate(story, display, made, heldout, "after")
    _alarm(story, display, before, after, "after training")
    record.samples(story.folder, before, after)


def _keep(story: _Story, display: Display, made: Trainer) -> None:
    if made.config.backbone.model == "random":
        display.say(
            "no checkpoint: a LoRA of random weights could be mistaken for one of the model"
        )
    else:
        lora.save(made.backbone, story.folder / "checkpoints" / "last")


def _evaluate(
    story: _Story, display: Display, made: Trainer, heldout: list[str], when: str
) -> Evaluation:
    with story.timed("evaluate"):
        found = _draw(made, heldout, story.watch)
    summary = story.manifest["evaluation"][when] = found.summary()
    seen = {f"{name} (watched)": value for name, value in summary["watched"].items()}
    figures = {"reward": summary["reward"], **summary["measures"], **seen, **summary["quality"]}
    text = "  ".join(f"{name} {_figure(value)}" for name, value in figures.items())
    display.say(f"held-out {when}: {text}  ({summary['samples']} pictures)")
    return found


def _figure(value: float | None) -> str:
    return "missing" if value is None else f"{value:.3f}"


def _draw(made: Trainer, heldout: list[str], watch: list[Rewards]) -> Evaluation:
    config = made.config
    env = made.env.walk(config.evaluate.steps or config.env.steps)
    rows, samples = config.train.rows, config.evaluate.samples
    return evaluate(env, heldout, samples, made.weight, config.seed, rows, made.poll, *watch)


def _between(
    story: _Story,
    display: Display,
    made: Trainer,
    heldout: list[str],
    iteration: int,
    before: Evaluation,
) -> dict[str, Any]:
    every = made.config.evaluate.every
    if every == 0 or (iteration + 1) % every:
        return {}
    with story.timed("evaluate"):
        found = _draw(made, heldout, story.watch)
    return {
        "heldout": found.summary(),
        "alarms": _alarm(story, display, before, found, f"iteration {iteration + 1}"),
    }


def _alarm(
    story: _Story, display: Display, before: Evaluation, after: Evaluation, when: str
) -> list[str]:
    """Whether a watched reward fell while the trained one rose; said, and kept in the manifest."""
    found = [
        f"{when}: {one}"
        for one in alarms(before.watched, after.watched, after.score - before.score)
    ]
    story.manifest["alarms"].extend(found)
    for one in found:
        display.say(f"ALARM {one}")
    return found


def _warn(
    story: _Story, display: Display, made: Trainer, row: dict[str, Any], iteration: int
) -> None:
    """Once, when one of several rewards drowns the others."""
    found: list[str] = []
    shares: dict[str, float] = row["reward_shares"]
    name = max(shares, key=lambda one: shares[one])
    if iteration == 0 and len(shares) > 1 and shares[name] > _DROWNS:
        found.append(
            f"reward {name} makes {shares[name]:.1%} of the variance: it drowns the others; mind the weights"
        )
    story.manifest["alarms"].extend(found)
    for one in found:
        display.say(f"WARNING {one}")


def _work(step: Step, rewards: int) -> Counts:
    done = step.metrics
    leaves = done["leaves"]
    return Counts(
        done["forwards"], done["update_forwards"], done["edges"], leaves, leaves, leaves * rewards
    )


def _draw_tree(folder: Path, made: Trainer, step: Step, iteration: int) -> None:
    tree = step.tree
    mine = tree.prompt[tree.leaves] == 0
    if not bool(mine.any()):  # its trees were dropped
        return
    images = made.env.ask(step.prompts).decode(tree.at(tree.leaves[mine]))
    record.tree(folder, iteration, step, images, (step.score @ made.weight)[mine])


def _introduce(display: Display, story: _Story, made: Trainer, train: int, heldout: int) -> None:
    config, total = made.config, story.manifest["plan"]
    trainable = sum(parameter.numel() for parameter in made.parameters)
    story.manifest["trainable_parameters"] = trainable
    story.manifest["prompts"] = {"train": train, "heldout": heldout}
    story.save()
    rewards = ", ".join(f"{name} × {weight:g}" for name, weight in config.rewards.items())
    display.say(
        f"{config.backbone.name} ({config.backbone.model}) · {config.recipe} · reward {rewards} · "
        f"{trainable:,} trainable weights ({config.train.weights}) · {train} training and {heldout} held-out prompts\n"
        f"plan: {total['iterations']} iterations, {total['sampling_forwards']:,.0f} sampling and "
        f"{total['update_forwards']:,.0f} update forwards expected · folder {story.folder}"
    )


def _finish(story: _Story, display: Display) -> None:
    story.manifest["ended"] = record.now()
    if story.manifest["status"] == "running":  # an error that is not one of ours
        story.manifest["status"] = "failed"
    story.save()
    display.say(f"report: {report.write(story.folder)}")


def load(
    config: Config, plan: Plan, device: torch.device, rewards: Rewards
) -> tuple[Backbone, PromptedEnv]:
    """The model, and the environment that its rewards and kernel make of it."""
    backbone: Backbone = registry.load("backbones", config.backbone.name).load(
        config.backbone, device
    )
    env: PromptedEnv = registry.load("envs", config.env.name).make(backbone, rewards, config)
    for shape in plan.starts().values():
        env.refuse_unsound(shape.stochastic)
    return backbone, env


def device(config: Config) -> torch.device:
    """The device that the configuration names, tried; `InputError` when it cannot be used."""
    name = config.backbone.device
    found = torch.device(
        ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name
    )
    try:
        torch.empty(1, device=found)
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"backbone.device: {name} cannot be used: {str(error).splitlines()[0]}"
        ) from error
    return found
