"""treerl: tree reinforcement learning for diffusion and flow models."""

from importlib.metadata import PackageNotFoundError, version

from treerl.registry import load as load

try:
    __version__ = version("treerl")
except PackageNotFoundError:  # a checkout that was never installed
    __version__ = "0+unknown"
