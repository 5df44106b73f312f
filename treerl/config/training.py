"""The settings of the optimisation."""

from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt

from treerl.config.section import Plugin, Section, Text, default

ITERATIONS = 1_000_000  # more of anything is a slip of the finger


class Selection(Plugin, kind="selections", path="train.selection"):
    """Which sampled edges are trained."""

    name: Text = "contrast"


class Train(Section):
    """The optimisation."""

    iterations: Annotated[int, Ge(0), Le(ITERATIONS)] = 60
    prompts_per_iteration: Annotated[int, Ge(1), Le(100_000)] = 8
    micro_batch_size: Annotated[int, Ge(1), Le(100_000)] = 24  # samples in every forward
    optimizer_steps: Annotated[int, Ge(1), Le(10_000)] = 4  # per iteration and epoch
    ppo_epochs: Annotated[int, Ge(1), Le(1000)] = 1  # passes over the edges of one rollout
    reduction: Literal["nodes", "edges", "depths"] = "nodes"
    selection: Selection = default()
    learning_rate: Annotated[float, Ge(0)] = 1e-4
    decay: Literal["none", "linear"] = "linear"  # of the learning rate, over train.iterations
    ema: Annotated[float, Ge(0), Lt(1)] = 0.0  # decay of the weights' moving average; 0 is none
    rollout: Literal["policy", "ema"] = "policy"  # whose weights grow the trees
    teacher: Text | None = None  # the folder of trained weights that an objective may ask for
    weight_decay: Annotated[float, Ge(0)] = 1e-4
    adam_epsilon: Annotated[float, Gt(0)] = 1e-8  # above a gradient, steps shrink with it
    max_grad_norm: Annotated[float, Gt(0)] = 1.0
    trainable: Literal["lora", "full"] = "lora"
    lora_rank: Annotated[int, Ge(1), Le(4096)] = 16
    lora_alpha: Annotated[float, Gt(0)] = 32.0
    merge_lora: bool = True  # fold it into its layers where no density is asked for
    gradient_checkpointing: bool = False  # recompute activations: less memory, more time
    threads: Annotated[int, Ge(0), Le(1024)] = 0  # 0 is torch's own choice
    save_every: Annotated[int, Ge(0), Le(ITERATIONS)] = 20  # iterations; 0 is at the end alone
    keep_last: Annotated[int, Ge(1), Le(1000)] = 2  # checkpoints
    keep_best: bool = False  # also the one of the best held-out reward (evaluate.every)
    guard: Literal["say", "stop", "rollback"] = "say"  # about a run that cannot be right
