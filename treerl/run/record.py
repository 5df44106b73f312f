"""Keeps a run in its folder while it goes on: figures, samples, trees, checkpoints, and the page."""

import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from treerl.config.resolve import dump
from treerl.engine.trainer import Step
from treerl.errors import Stopped, TreerlError
from treerl.run import checkpoints
from treerl.run.evaluate import Evaluation
from treerl.run.folder import Manifest, RunFolder, now
from treerl.run.run import Listener, Run
