"""Imports what is heavy, without its bars and advice."""

import os
import warnings


def quiet() -> None:
    """Silence diffusers and transformers: what goes wrong is said by treerl, in one line."""
    # before torch is imported: spinning OpenMP threads on a busy machine are far slower than sleeping
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "critical")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "critical")
    warnings.filterwarnings("ignore", module="diffusers|transformers|huggingface_hub")
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    for logging in (diffusers_logging, transformers_logging):
        logging.set_verbosity(50)
        logging.disable_progress_bar()
