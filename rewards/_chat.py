"""Questions about images to a model behind an OpenAI-compatible endpoint."""

import base64
import io
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import ClassVar

from PIL import Image
from torch import Tensor

from treerl.errors import InputError, RewardError
from treerl.reward.address import Address
from treerl.reward.client import Client, Question
from treerl.reward.contract import Reward
from treerl.reward.interrupt import check_interrupt
from treerl.reward.tokens import token_for

TOKEN = "OPENAI_API_KEY"  # the environment variable
SERVICE = "https://api.openai.com:443"  # whose key it is, unless OPENAI_API_KEY_HOST names another
_LIMIT = 2**20  # bytes of a reply
_LETTERS = 16  # of a token of a reply, at most
_LISTEN = 0.2  # seconds between two looks at whether the user wants to stop


@dataclass(frozen=True)
class Chat(Reward):
    """A reward that asks; each image is one question."""

    title: ClassVar[str]

    url: str = ""  # such as http://127.0.0.1:8000/v1
    model: str = ""
    answer_timeout: float = 60.0  # seconds for one answer, retries included
    parallel: int = 8  # questions at a time

    def __post_init__(self) -> None:
        for name in ("url", "model"):
            if not getattr(self, name):
                why = f"expected one, as {self.title} asks a model; got none"
                raise InputError(f"rewards.{self.title}.{name}: {why}")
        self._client()

    def replies(self, images: Tensor, questions: Sequence[str], tokens: int) -> list[str]:
        """What the model says of each image `[N, 3, H, W]`."""
        client = self._client()
        pool = ThreadPoolExecutor(self.parallel)
        try:
            pending = [
                pool.submit(self._reply, client, image, question, tokens)
                for image, question in zip(images.cpu(), questions, strict=True)
            ]
            waiting = set(pending)
            while waiting:
                done, waiting = wait(waiting, _LISTEN)
                for reply in done:
                    reply.result()  # the first failure ends the call
                check_interrupt()
            return [reply.result() for reply in pending]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _client(self) -> Client:
        named = f"reward {self.title}"
        address = Address.parse(named, self.url, path=True)
        token = token_for(address, TOKEN, [SERVICE])
        return Client(named, address, token, self.answer_timeout)

    def _reply(self, client: Client, image: Tensor, question: str, tokens: int) -> str:
        shown = {"url": f"data:image/png;base64,{_png(image)}"}
        content = [{"type": "text", "text": question}, {"type": "image_url", "image_url": shown}]
        request = {
            "model": self.model,
            "messages": [{"role": "user", "content": content}],
            "temperature": 0,
            "max_tokens": tokens,
        }
        body = json.dumps(request).encode()
        reply = client.ask(Question("POST", "/chat/completions", body, "application/json", _LIMIT))
        try:
            text = json.loads(reply)["choices"][0]["message"]["content"]
        except (ValueError, KeyError, IndexError, TypeError, RecursionError) as error:
            start = client.plain(reply)[:80]
            raise RewardError(
                f"{client.named}: {client.address} does not answer as a chat model: {start!r}"
            ) from error
        if not isinstance(text, str) or len(text) > _LETTERS * tokens:
            raise RewardError(
                f"{client.named}: {client.address} does not answer with a text of {tokens} tokens"
            )
        return client.token.redact(text)


def _png(image: Tensor) -> str:
    pixels = (image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).contiguous().numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode("ascii")
