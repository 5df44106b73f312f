"""A session does what its configuration says: prompts, noise, evaluation and optimizer."""

from pathlib import Path

import torch
from ended_runs import SETTINGS
from test_resume import inside as inside

from treerl.config.resolve import resolve
from treerl.run.assemble import build
from treerl.run.evaluate import Figures
from treerl.run.session import Session


def session(*sets: str) -> Session:
    return build(resolve(None, SETTINGS, sets, True))


def test_a_prompt_that_comes_twice_in_an_iteration_grows_another_tree() -> None:
    # the file has four prompts
    (step,) = session("train.prompts_per_iteration=8").train(1)
    keys = step.tree.key[: step.tree.sizes[0]]
    prompts = [task.prompt for task in step.tasks]
    assert len(prompts) == 8 and len(set(prompts)) == 4
    assert len(torch.unique(keys)) == 8


def test_the_noise_of_a_tree_follows_seed_iteration_and_prompt() -> None:
    def keys(*sets: str) -> set[int]:
        steps = list(session("train.prompts_per_iteration=4", *sets).train(3))
        found = [step.tree.key[: step.tree.sizes[0]] for step in steps]
        assert len(torch.unique(torch.cat(found))) == 12
        return set(torch.cat(found).tolist())

    assert keys() == keys() and not keys() & keys("seed=1")


def test_an_evaluation_draws_the_held_out_prompts() -> None:
    Path("held.txt").write_text("a wolf in the snow\nan old red bus\na boat\n")
    made = session("data.heldout=held.txt", "evaluate.samples_per_prompt=2")
    evaluation = made.evaluate()
    drawn = [sample.prompt for sample in evaluation.samples.tasks]
    # two at most, `evaluate.max_prompts`
    assert drawn == ["a wolf in the snow"] * 2 + ["an old red bus"] * 2
    assert evaluation.samples.group.tolist() == [0, 0, 1, 1]
    assert {task.prompt for task in made.tasks} == {"a cat", "a dog", "a fox", "a bear"}


def test_every_held_out_sample_is_drawn_from_noise_of_its_own_that_follows_the_seed() -> None:
    # prompts of one length are the same to this model: what differs is their noise
    Path("held.txt").write_text("a cat\na dog\na cow\n")
    sets = ("data.heldout=held.txt", "evaluate.samples_per_prompt=2", "evaluate.max_prompts=3")
    total = session(*sets).evaluate().total
    assert len(torch.unique(total)) == 6
    assert torch.equal(session(*sets).evaluate().total, total)
    assert not torch.isin(session(*sets, "seed=1").evaluate().total, total).any()


def test_a_sample_without_a_score_is_left_out_of_the_means() -> None:
    column = torch.tensor([1.0, torch.nan, 4.0], dtype=torch.float64)
    figures = Figures(column[:, None], column, {"right": column / 4}, {"w": -column}, {})
    summary = figures.summary()
    assert summary["reward"] == 2.5 and summary["samples"] == 3
    assert summary["measures"] == {"right": 0.625} and summary["watched"] == {"w": -2.5}


def test_an_evaluation_takes_its_own_steps_where_they_are_set() -> None:
    seven = session("evaluate.steps=7").evaluate().total
    assert torch.equal(seven, session("env.steps=7").evaluate().total)
    assert not torch.equal(seven, session().evaluate().total)


def test_what_the_optimizer_and_the_environment_are_told_is_what_is_configured() -> None:
    made = session(
        "train.learning_rate=0.002",
        "train.weight_decay=0.03",
        "train.adam_epsilon=2e-5",
        "train.max_grad_norm=0.7",
        "train.micro_batch_size=5",
        "env.guidance=3.5",
        "env.latent_dtype=bfloat16",
        "env.latent_device=cpu",
        "seed=9",
    )
    (group,) = made.trainer.optimizer.param_groups
    assert (group["lr"], group["weight_decay"], group["eps"]) == (0.002, 0.03, 2e-5)
    trainer = made.trainer
    assert (trainer.max_grad_norm, trainer.micro_batch_size, trainer.seed) == (0.7, 5, 9)
    assert made.plan.seed == 9
    env = made.env
    assert env.settings.guidance == 3.5  # type: ignore[attr-defined]
    assert env.latent_dtype == torch.bfloat16 and env.latent_device.type == "cpu"
    (step,) = made.train(1)
    assert step.tree.x.dtype == torch.bfloat16


def test_a_fresh_lora_follows_the_seed() -> None:
    def weights(seed: int) -> torch.Tensor:
        parameters = session("train.trainable=lora", f"seed={seed}").trainer.optimizer
        return torch.cat([p.detach().flatten() for p in parameters.param_groups[0]["params"]])

    assert torch.equal(weights(1), weights(1)) and not torch.equal(weights(1), weights(2))


def test_the_split_of_a_prompt_file_follows_the_seed() -> None:
    Path("many.txt").write_text("".join(f"prompt {number}\n" for number in range(60)))
    sets = ("data.train=many.txt", "data.heldout=null", "evaluate.max_prompts=60")
    held = [frozenset(session(*sets, f"seed={seed}").heldout) for seed in (0, 0, 1)]
    assert held[0] == held[1] != held[2] and len(held[0]) == 6
