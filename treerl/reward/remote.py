"""A reward behind HTTP: nothing is believed that is not the protocol."""

import os
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from treerl.engine.task import Modality
from treerl.errors import InputError, RewardError
from treerl.reward import wire
from treerl.reward.contract import Reward
from treerl.reward.link import Address, Question, ask

TOKEN = "TREERL_REWARD_TOKEN"  # the environment variable
_ROOM = 65_536  # bytes of a reply beside its scores


class Remote(Reward):
    """Asks a server of `treerl serve-reward`."""

    def __init__(self, name: str, url: str, deadline: float) -> None:
        self.named, self.deadline = f"reward {name}", deadline
        self.address = Address.parse(self.named, url, TOKEN)
        if self.address.path:
            raise InputError(f"{self.named}: expected an address such as http://127.0.0.1:8000")
        try:
            told = self._exchange("GET", "/health", b"", _ROOM)
        except RewardError as error:
            raise InputError(str(error)) from error
        if told.get("takes") not in ("images", "videos"):
            raise InputError(f"{self.named}: {self.address} does not say what it scores")
        self.takes: Modality = told["takes"]  # type: ignore[misc]

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Scores `[N]`; NaN where the reward's own were not finite."""
        found = self._exchange(
            "POST", "/score", wire.request(images, prompts), _ROOM + 64 * len(prompts)
        )
        try:
            return wire.scores(found, len(prompts))
        except wire.WireError as error:
            raise self._strange(error) from error

    def _exchange(self, method: str, path: str, body: bytes, most: int) -> dict[str, Any]:
        headers = {"Content-Type": "application/octet-stream"}
        if token := os.environ.get(TOKEN):
            headers["Authorization"] = f"Bearer {token}"
        question = Question(method, path, headers, body)
        try:
            return wire.strict(ask(self.named, self.address, question, most, self.deadline))
        except wire.WireError as error:
            raise self._strange(error) from error

    def _strange(self, error: wire.WireError) -> RewardError:
        return RewardError(f"{self.named}: {self.address} does not answer as a reward: {error}")
