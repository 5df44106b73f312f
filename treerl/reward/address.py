"""Where a server is: an address without secrets."""

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from treerl.errors import InputError

_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"[A-Za-z0-9._:-]{1,253}")
_PATH = re.compile(r"[A-Za-z0-9._~/-]*")


@dataclass(frozen=True)
class Address:
    """The parts of a URL that requests are sent to."""

    scheme: str
    host: str  # lower case
    port: int
    path: str = ""

    @property
    def authority(self) -> str:
        """`host:port`, as a user names a host for a token."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def origin(self) -> str:
        """`scheme://host:port`."""
        return f"{self.scheme}://{self.authority}"

    def __str__(self) -> str:
        return self.origin + self.path

    @classmethod
    def parse(cls, named: str, url: str, path: bool = False) -> "Address":
        """`InputError` says what `named` expected; a `path` is taken only where it is asked for."""
        expected = f"{named}: expected an address such as http://127.0.0.1:8000"
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise InputError(expected) from None
        if parts.username or parts.password:
            raise InputError(f"{named}: expected no password in an address; see docs/rewards.md")
        sound = parts.scheme in _PORTS and _HOST.fullmatch(parts.hostname or "")
        if not sound or parts.query or parts.fragment or not _PATH.fullmatch(parts.path):
            raise InputError(expected)
        rest = parts.path.rstrip("/")
        if rest and not path:
            raise InputError(f"{expected}, without a path")
        return cls(parts.scheme, parts.hostname or "", port or _PORTS[parts.scheme], rest)
