"""Silences what is imported: what goes wrong is said by treerl, in one line."""

from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging


def quiet() -> None:
    """No bars and no advice of diffusers and transformers."""
    for logging in (diffusers_logging, transformers_logging):
        logging.set_verbosity(50)
        logging.disable_progress_bar()
