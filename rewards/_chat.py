"""Questions about pictures to a model behind an OpenAI-compatible endpoint (vLLM, SGLang, Ollama, a service)."""

import base64
import io
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import ClassVar

from PIL import Image
from torch import Tensor

from treerl.errors import InputError, RewardError
from treerl.reward.contract import Reward
from treerl.reward.link import Address, Question, ask

TOKEN = "OPENAI_API_KEY"  # the environment variable
_MOST = 2**20  # bytes of a reply


@dataclass(frozen=True)
class Chat(Reward):
    """A reward that asks; each picture is one question."""

    title: ClassVar[str]

    url: str = ""  # such as http://127.0.0.1:8000/v1
    model: str = ""
    deadline: float = 60.0  # seconds for one answer, retries included
    parallel: int = 8  # questions at a time

    def __post_init__(self) -> None:
        for name in ("url", "model"):
            if not getattr(self, name):
                raise InputError(
                    f"scoring.options.{self.title}.{name}: expected one, as {self.title} asks a model; got none"
                )
        Address.parse(f"reward {self.title}", self.url, TOKEN)

    def replies(self, images: Tensor, questions: Sequence[str], tokens: int) -> list[str]:
        """What the model says of each picture `[N, 3, H, W]`."""
        with ThreadPoolExecutor(self.parallel) as pool:
            return list(
                pool.map(
                    lambda image, question: self._reply(image, question, tokens),
                    images.cpu(),
                    questions,
                )
            )

    def _reply(self, image: Tensor, question: str, tokens: int) -> str:
        named = f"reward {self.title}"
        picture = {
            "type": "image_url",
            "image_url": {"url": f"data:image/png;base64,{_png(image)}"},
        }
        content = [{"type": "text", "text": question}, picture]
        asked = {"model": self.model, "messages": [{"role": "user", "content": content}]}
        body = json.dumps({**asked, "temperature": 0, "max_tokens": tokens}).encode()
        headers = {"Content-Type": "application/json"}
        if token := os.environ.get(TOKEN):
            headers["Authorization"] = f"Bearer {token}"
        address = Address.parse(named, self.url, TOKEN)
        found = ask(
            named,
            address,
            Question("POST", "/chat/completions", headers, body),
            _MOST,
            self.deadline,
        )
        try:
            said = json.loads(found)["choices"][0]["message"]["content"]
        except (ValueError, KeyError, IndexError, TypeError, RecursionError) as error:
            raise RewardError(
                f"{named}: {address} does not answer as a chat model: {found[:80]!r}"
            ) from error
        if not isinstance(said, str):
            raise RewardError(f"{named}: {address} does not answer with a text")
        return said


def _png(image: Tensor) -> str:
    pixels = (image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).contiguous().numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode("ascii")
