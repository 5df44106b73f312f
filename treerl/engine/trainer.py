"""One step of training: grow a forest, score its leaves, propagate the scores, update the policy on its edges."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from treerl import registry
from treerl.backbone import lora
from treerl.backbone.contract import Backbone
from treerl.config.schema import Config
from treerl.engine import noise
from treerl.engine.advantage import Advantages, advantages, combine
from treerl.engine.baseline import Baseline
from treerl.engine.env import PromptedEnv
from treerl.engine.grow import grow, plant
from treerl.engine.minibatch import Minibatch, minibatches
from treerl.engine.noise import Purpose
from treerl.engine.objective import Edges, Loss, Objective
from treerl.engine.tree import Tree
from treerl.engine.weighting import Weighting
from treerl.errors import NumericsError, RewardError
from treerl.reward.rewards import Rewards
from treerl.run.plan import Plan


@dataclass(frozen=True)
class Step:
    """What one iteration did."""

    tree: Tree
    prompts: tuple[str, ...]
    score: Tensor  # [L, K]
    advantages: Advantages
    metrics: dict[str, Any]


@dataclass(frozen=True)
class Trainer:
    """Everything that an iteration needs; made by `make`."""

    config: Config
    plan: Plan
    backbone: Backbone
    env: PromptedEnv
    weighting: Weighting
    baseline: Baseline
    objective: Objective
    parameters: list[nn.Parameter]
    optimizer: torch.optim.Optimizer
    poll: Callable[[], None] = field(
        default=lambda: None
    )  # called before every forward; may raise to stop

    @property
    def weight(self) -> Tensor:
        """The rewards' weights `[K]`."""
        return self.env.rewards.weights

    def iterate(self, iteration: int, prompts: Sequence[str]) -> Step:
        """One iteration over the training prompts that the plan chooses."""
        config, rows = self.config, self.plan.rows(iteration, len(prompts))
        texts = tuple(prompts[row] for _, row in rows)
        env = self.env.ask(texts)
        keys = [noise.key(config.seed, Purpose.ROLLOUT, iteration, turn, row) for turn, row in rows]
        roots = plant(keys, config.tree.roots, config.tree.shared_noise)
        tree = grow(env, roots, self.plan.shape(iteration), config.train.rows, self.poll)
        tree, score, dropped = _dropped(tree, env.reward(tree.at(tree.leaves)))
        a = config.advantage
        apart = a.normalise and config.scoring.combine == "standardised"
        leaf = combine(tree, score, self.weight, apart, a.tolerance)
        gained = advantages(tree, leaf, self.weighting, self.baseline, a.normalise, a.clip)
        update = self._update(env, tree, gained.advantage, iteration)
        metrics = {
            **_measure(tree, score, self.env.rewards, gained, config),
            "dropped_trees": dropped,
            **update,
        }
        return Step(tree, texts, score, gained, metrics)

    def _update(
        self, env: PromptedEnv, tree: Tree, advantage: Tensor, iteration: int
    ) -> dict[str, Any]:
        config = self.config
        shuffle = noise.generator(config.seed, Purpose.SHUFFLE, iteration)
        steps = minibatches(
            tree,
            config.train.updates,
            config.train.rows,
            shuffle,
            config.tree.fraction,
            config.objective.reduce,
        )
        losses: list[list[tuple[Minibatch, Loss]]] = []
        norms = []
        for batches in steps:
            self.optimizer.zero_grad(set_to_none=True)
            losses.append(
                [(batch, self._backward(env, tree, batch, advantage)) for batch in batches]
            )
            norms.append(self._step(iteration))
        self.optimizer.zero_grad(set_to_none=True)
        done = [pair for step in losses for pair in step]
        return {
            "loss": sum(
                float((batch.weight * loss.value.cpu().double()).sum()) for batch, loss in done
            )
            / len(steps),
            "update_forwards": sum(batch.real for batch, _ in done),
            "edges": sum(len(batch.children) for batch, _ in done),
            "clip_fraction": float(torch.cat([loss.clipped for _, loss in done]).float().mean()),
            # of the first optimizer step, where the policy has not moved: anything but 0 is an error of replay
            "ratio_deviation": max(float((loss.ratio - 1).abs().max()) for _, loss in losses[0]),
            "grad_norm": max(norms),
        }

    def _backward(self, env: PromptedEnv, tree: Tree, batch: Minibatch, advantage: Tensor) -> Loss:
        self.poll()
        parents, device = tree.at(batch.parents), env.device
        owner = batch.owner.to(device)
        policy = env.policy(parents, stochastic=True).take(owner)
        reference = None
        if self.config.objective.kl > 0:
            with torch.no_grad(), lora.disabled(self.backbone):
                reference = env.policy(parents, stochastic=True).take(owner)
        edges = Edges(
            x=tree.at(batch.children).x.to(device),
            log_prob=tree.log_prob[batch.children].to(device),
            advantage=advantage[batch.children].to(device),
            reference=reference,
        )
        loss = self.objective(policy, edges)
        (loss.value * batch.weight.to(loss.value)).sum().backward()  # type: ignore[no-untyped-call]
        return Loss(loss.value.detach(), loss.ratio, loss.clipped)

    def _step(self, iteration: int) -> float:
        norm = float(nn.utils.clip_grad_norm_(self.parameters, self.config.train.max_grad_norm))
        if not torch.isfinite(torch.tensor(norm)):
            raise NumericsError(
                f"update: iteration {iteration + 1}: the gradient is not finite; nothing moved"
            )
        self.optimizer.step()
        return norm


def make(
    config: Config, plan: Plan, backbone: Backbone, env: PromptedEnv, poll: Callable[[], None]
) -> Trainer:
    """The trainer that the configuration describes; the denoiser gets its trainable weights here."""
    adapter = Path(config.backbone.adapter) if config.backbone.adapter else None
    parameters = lora.attach(backbone, config.train, adapter, config.seed)
    t, a = config.train, config.advantage
    kinds = registry.load("weightings", a.weighting), registry.load("baselines", a.baseline)
    return Trainer(
        config=config,
        plan=plan,
        backbone=backbone,
        env=env,
        weighting=registry.build("weightings", a.weighting, a, beside=kinds[1]),
        baseline=registry.build("baselines", a.baseline, a, beside=kinds[0]),
        objective=registry.build("objectives", config.objective.name, config.objective),
        parameters=parameters,
        optimizer=torch.optim.AdamW(
            parameters, lr=t.learning_rate, weight_decay=t.weight_decay, fused=True
        ),
        poll=poll,
    )


def _dropped(tree: Tree, score: Tensor) -> tuple[Tree, Tensor, int]:
    """The forest and its scores `[L, K]` without the trees that have a leaf without a score."""
    bad = torch.isnan(score).any(1)
    if not bool(bad.any()):
        return tree, score, 0
    roots = tree.tree_of()[tree.leaves]
    trees = torch.unique(roots[bad])
    if len(trees) == tree.sizes[0]:
        raise RewardError(
            f"scoring.on_bad_reward: all {len(trees)} trees of the iteration have a leaf without a score"
        )
    return tree.without(trees), score[~torch.isin(roots, trees)], len(trees)


def _shares(tree: Tree, score: Tensor, rewards: Rewards, config: Config) -> dict[str, Any]:
    """How much each reward varies within a prompt, and its share of the variance of what is trained on."""
    prompt = tree.prompt[tree.leaves]
    each = [score[prompt == one].var(0, unbiased=False) for one in torch.unique(prompt).tolist()]
    variance = torch.stack(each).mean(0)
    raw = config.scoring.combine == "raw"
    names = rewards.names
    part = rewards.weights.square() * (variance if raw else (variance > 0).double())
    share = part / part.sum().clamp(min=1e-30)
    return {
        "reward_spreads": dict(zip(names, variance.sqrt().tolist(), strict=True)),
        "reward_shares": dict(zip(names, share.tolist(), strict=True)),
    }


def _measure(
    tree: Tree, score: Tensor, rewards: Rewards, gained: Advantages, config: Config
) -> dict[str, Any]:
    names = rewards.names
    total = rewards.total(score)
    prompt = tree.prompt[tree.leaves]
    spread = torch.stack(
        [total[prompt == one].std(unbiased=False) for one in torch.unique(prompt).tolist()]
    ).mean()
    return {
        "reward": float(total.mean()),
        "reward_spread": float(spread),
        "rewards": {
            name: float(column.mean()) for name, column in zip(names, score.unbind(1), strict=True)
        },
        **_shares(tree, score, rewards, config),
        "forwards": sum(tree.sizes[:-1]),
        "leaves": tree.sizes[-1],
        "start": int(tree.step[tree.edges].min()) - 1,
        "advantage_abs": float(gained.advantage[tree.edges].abs().mean()),
        "flat_prompts": gained.flat,
    }
