"""The files of your own that a run used: their checksums and copies, so that nothing is lost."""

import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path

from treerl import registry
from treerl.config.schema import Config, plugin_names
from treerl.errors import InputError, printable
from treerl.run.durable import storing
from treerl.run.files import PluginFile


def refuse_others(config: Config, began: Sequence[PluginFile]) -> None:
    """`InputError` when a plug-in file is another than the one that a run began with."""
    known = {plugin.name: plugin for plugin in began}
    for name in plugin_names(config):
        path = registry.source_file(name)
        if path is None or name not in known:
            continue
        checksum = hashlib.sha256(path.read_bytes()).hexdigest()
        if checksum != known[name].sha256:
            text = f"--resume: {path} is another file than the run began with; its copy is "
            raise InputError(printable(f"{text}{known[name].kept} in the run folder"))


def keep(config: Config, folder: Path) -> list[PluginFile]:
    """Copy every plug-in file that the configuration names into `folder/plugins`."""
    kept = []
    for name in plugin_names(config):
        path = registry.source_file(name)
        if path is None:
            continue
        content = path.read_bytes()
        checksum = hashlib.sha256(content).hexdigest()
        copy = Path("plugins") / checksum[:12] / path.name
        with storing(folder / copy):
            (folder / copy).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, folder / copy)
        kept.append(
            PluginFile(name=name, path=str(path.resolve()), sha256=checksum, copy=str(copy))
        )
    return kept
