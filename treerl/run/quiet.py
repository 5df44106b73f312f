"""Silences what is imported: what goes wrong is said by treerl, in one line."""

import logging

from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging


def quiet() -> None:
    """No bars and no advice of diffusers, transformers and bitsandbytes."""
    for library in (diffusers_logging, transformers_logging):
        library.set_verbosity(50)
        library.disable_progress_bar()
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # where it is installed, peft asks it
