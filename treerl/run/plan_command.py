"""`treerl plan`: what a run would cost."""

import json
from typing import TYPE_CHECKING

from treerl.config.flags import For, Json, Measure, Memory, takes_settings
from treerl.run.size import parse_size

if TYPE_CHECKING:
    from treerl.config.schema import Config


@takes_settings
def plan(
    config: "Config",
    as_json: Json = False,
    memory: Memory = False,
    size: For = None,
    measure: Measure = False,
) -> None:
    """Print what a run would cost, without loading a model; refuses what run would refuse."""
    wanted = None if size is None else parse_size(size)
    # what follows imports torch: a slip of the finger is told before
    from treerl.config.announce import announce
    from treerl.run.plan_table import print_table, table

    announce(config)
    figures = table(config, memory, wanted, measure)
    print(json.dumps(figures, indent=2)) if as_json else print_table(figures)
