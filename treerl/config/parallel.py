"""How several processes work on one run."""

from typing import Annotated

from annotated_types import Ge, Gt, Le

from treerl.config.section import Section


class Parallel(Section):
    """Several processes, as a launcher starts them."""

    timeout: Annotated[float, Gt(0), Le(86_400)] = 300.0  # seconds that one waits for another
    patience: Annotated[float, Ge(2), Le(86_400)] = 10.0  # seconds without a sign of life of one
    shard: bool = False  # whether the denoiser lies in parts on all of them
    verify_every: Annotated[int, Ge(0), Le(1_000_000)] = 10  # iterations; 0 is never
