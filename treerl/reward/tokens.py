"""Tokens from the environment: each goes to the host that was named for it, and nowhere else."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from treerl.errors import InputError
from treerl.reward.address import Address

TOKEN = "TREERL_REWARD_TOKEN"  # the environment variable of reward servers


def read(variable: str) -> str | None:
    """The token in a variable, without the line break that files end in; None without one."""
    value = os.environ.get(variable, "").strip()
    if any(not "!" <= letter <= "~" for letter in value):
        raise InputError(f"{variable}: expected a token of ASCII letters, digits and marks alone")
    return value or None


@dataclass(frozen=True)
class Token:
    """What a server is to be told, and what must never be shown."""

    value: str | None = field(default=None, repr=False)
    hint: str = ""  # why there is none, where one is set for another host

    @property
    def headers(self) -> dict[str, str]:
        """As HTTP carries it."""
        return {"Authorization": f"Bearer {self.value}"} if self.value else {}

    def redact(self, text: str) -> str:
        """The text without the token, which a server may repeat."""
        return text.replace(self.value, "***") if self.value else text


def token_for(address: Address, variable: str, otherwise: Sequence[str] = ()) -> Token:
    """The token of `variable` if `variable_HOST` names this address, with or without its scheme.

    `otherwise` are the addresses that it goes to when the user names none.
    """
    value = read(variable)
    if value is None:
        return Token()
    hosts = os.environ.get(f"{variable}_HOST", "").split() or otherwise
    if any(host.lower() in (address.origin, address.authority) for host in hosts):
        return Token(value)
    hint = f"{variable} was not sent, as {variable}_HOST does not name {address.authority}"
    return Token(hint=hint)
