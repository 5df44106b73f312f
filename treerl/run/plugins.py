"""The files of your own that a run used: their checksums and copies, so that nothing is lost."""

import hashlib
import shutil
from pathlib import Path

from treerl import registry
from treerl.config.schema import Config, plugin_names
from treerl.run.files import PluginFile
from treerl.run.folder import storing


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
