"""A reward behind HTTP: nothing is believed that is not the protocol."""

from collections.abc import Sequence
from concurrent.futures import Future, wait
from threading import Thread
from typing import Any

from torch import Tensor

from treerl.engine.task import Modality, Samples, Task
from treerl.errors import InputError, RewardError
from treerl.reward import wire
from treerl.reward.address import Address
from treerl.reward.client import Client, Question, Rejected
from treerl.reward.contract import Reward
from treerl.reward.interrupt import check_interrupt
from treerl.reward.tokens import TOKEN, token_for

_ROOM = 65_536  # bytes of a reply beside its numbers
_NUMBER = 64  # bytes of a number in a reply
_TASKS = 256  # in one question
_LISTEN = 0.2  # seconds between two looks at whether the user wants to stop


class Remote(Reward):
    """Asks a server of `treerl serve-reward`."""

    def __init__(self, client: Client, modality: Modality) -> None:
        self.client = client
        self.modality = modality
        self._coming: tuple[Samples, Future[Tensor]] | None = None  # what was begun

    @staticmethod
    def client_of(name: str, url: str, timeout: float) -> Client:
        """What asks the server at this address; `InputError` when it is no address."""
        named = f"reward {name}"
        address = Address.parse(named, url)
        return Client(named, address, token_for(address, TOKEN), timeout)

    @classmethod
    def connect(cls, name: str, url: str, timeout: float) -> "Remote":
        """`InputError` when there is no such server, or it scores nothing that we know."""
        client = cls.client_of(name, url, timeout)
        try:
            health = _exchange(client, Question("GET", "/health"))
        except RewardError as error:
            raise InputError(str(error)) from error
        modality = health.get("modality")
        if modality not in ("images", "videos"):
            raise InputError(f"{client.named}: {client.address} does not say what it scores")
        return cls(client, modality)

    def begin(self, samples: Samples) -> None:
        answer: Future[Tensor] = Future()
        self._coming = (samples, answer)
        Thread(target=self._settle, args=(samples, answer), daemon=True).start()

    def __call__(self, samples: Samples) -> Tensor:
        """Scores `[N]`; NaN where the reward's own were no numbers."""
        coming = self._coming
        self._coming = None
        if coming is None or coming[0] is not samples:
            return self._scored(samples)
        _, answer = coming
        while not answer.done():
            wait([answer], _LISTEN)
            check_interrupt()
        return answer.result()

    def _settle(self, samples: Samples, answer: "Future[Tensor]") -> None:
        try:
            answer.set_result(self._scored(samples))
        except BaseException as error:
            answer.set_exception(error)  # raised where it is waited for

    def _scored(self, samples: Samples) -> Tensor:
        content = self._post("/score", samples.tasks, samples, _ROOM + _NUMBER * len(samples))
        try:
            return wire.scores(content, len(samples))
        except wire.WireError as error:
            raise self.client.strange(error) from error

    def measures(self, samples: Samples) -> dict[str, Tensor]:
        limit = _ROOM + _NUMBER * wire.MEASURES * len(samples)
        content = self._post("/measures", samples.tasks, samples, limit)
        try:
            columns = wire.measures(content, len(samples))
        except wire.WireError as error:
            raise self.client.strange(error) from error
        if any(self.client.token.redact(title) != title for title in columns):
            raise self.client.strange("a measure is called like the token")
        return columns

    def validate_tasks(self, tasks: Sequence[Task]) -> None:
        for start in range(0, len(tasks), _TASKS):
            try:
                self._post("/validate", tasks[start : start + _TASKS], None, _ROOM)
            except Rejected as error:
                text = str(error).removeprefix(f"{self.client.named}: ")
                raise InputError(text) from error

    def _post(
        self, path: str, tasks: Sequence[Any], samples: Samples | None, limit: int
    ) -> dict[str, Any]:
        try:
            body = wire.question(tasks, samples)
        except (wire.WireError, OSError) as error:
            raise RewardError(f"{self.client.named}: cannot be sent: {error}") from error
        return _exchange(self.client, Question("POST", path, body, limit=limit))


def _exchange(client: Client, question: Question) -> dict[str, Any]:
    body = client.plain(client.ask(question))
    try:
        return wire.strict(body)
    except wire.WireError as error:
        raise client.strange(error) from error
