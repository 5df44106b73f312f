"""Says which files of the user's own will be run, before they are."""

import hashlib
import sys

from treerl import registry
from treerl.config.schema import Config, plugin_names
from treerl.config.textfile import read_bytes
from treerl.errors import printable


def announce(config: Config) -> None:
    """Print every plug-in file of the user's own, with its checksum."""
    for name in plugin_names(config):
        path = registry.source_file(name)
        if path is not None:
            checksum = hashlib.sha256(read_bytes(path, 2**24)).hexdigest()
            where = printable(str(path.resolve()))
            print(f"plug-in {printable(name)}: {where} sha256:{checksum}", file=sys.stderr)
