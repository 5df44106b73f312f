"""The judge and the reader of text, asked over HTTP at a model that answers as it is told."""

import base64
import io
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import torch
from PIL import Image

import treerl
from treerl.engine.task import Samples, Task
from treerl.errors import InputError, RewardError

IMAGES = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@contextmanager
def model(
    answer: Callable[[str, Image.Image], Any], keys: list[str | None] | None = None
) -> Iterator[str]:
    """A chat model behind an OpenAI-compatible endpoint."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            text, picture = asked["messages"][0]["content"]
            data = base64.b64decode(
                picture["image_url"]["url"].removeprefix("data:image/png;base64,")
            )
            said = answer(text["text"], Image.open(io.BytesIO(data)))
            reply = said if isinstance(said, bytes) else _reply(said)
            if keys is not None:
                keys.append(self.headers.get("Authorization"))
            status = 401 if self.headers.get("Authorization") == "Bearer wrong" else 200
            self.send_response(status)
            self.send_header("Content-Length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)

        def log_message(self, format: str, *args: Any) -> None:
            """Silent."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
        server.shutdown()


def _reply(said: object) -> bytes:
    return json.dumps({"choices": [{"message": {"role": "assistant", "content": said}}]}).encode()


def reward(name: str, url: str, **fields: Any) -> Any:
    return treerl.load("rewards", name)(url=url, model="m", answer_timeout=3.0, **fields)


def always(said: object) -> Callable[[str, Image.Image], Any]:
    return lambda text, image: said


def sample(prompt: str) -> Samples:
    return Samples.of(IMAGES[:1], [prompt])


def test_the_judge_is_told_the_prompt_and_shown_the_image() -> None:
    seen = []

    def answer(text: str, image: Image.Image) -> str:
        seen.append((text, image.size))
        return {"a cat": "7", "a dog": " 10/10. ", "x": "2.5"}[text.split('"')[1]]

    with model(answer) as url:
        found = reward("judge", url)(Samples.of(IMAGES, ["a cat", "a dog", "x"]))
    torch.testing.assert_close(found, torch.tensor([0.7, 1.0, 0.25]))
    assert {size for _, size in seen} == {(8, 8)} and len(seen) == 3


@pytest.mark.parametrize(
    "said",
    ["good", "11", "-1", "7 or 8", "", "nan", "I would say 7", 7, None, b"<html>", b"{}", b"[]"],
)
def test_an_answer_that_is_no_number_is_an_error(said: object) -> None:
    with (
        model(lambda text, image: said) as url,
        pytest.raises(RewardError, match=r"^reward judge: "),
    ):
        reward("judge", url)(Samples.of(IMAGES, ["a"] * 3))


def test_the_question_may_be_ones_own() -> None:
    with model(lambda text, image: "3" if text == "Is this a cat?" else "9") as url:
        scores = reward("judge", url, question="Is this {prompt}?")(sample("a cat"))
    assert scores.tolist() == pytest.approx([0.3])


def test_a_key_goes_to_the_service_or_to_the_host_that_was_named_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keys: list[str | None] = []
    monkeypatch.setenv("OPENAI_API_KEY", "planted-key\n")
    monkeypatch.delenv("OPENAI_API_KEY_HOST", raising=False)
    with model(lambda text, image: "3", keys) as url:
        host = url.removeprefix("http://").removesuffix("/v1")
        for named in (None, "127.0.0.1:1", f"https://{host}", host):
            if named is not None:
                monkeypatch.setenv("OPENAI_API_KEY_HOST", named)
            reward("judge", url)(sample("a"))
    assert keys == [None, None, None, "Bearer planted-key"]
    monkeypatch.delenv("OPENAI_API_KEY_HOST")
    for url, value in (
        ("https://api.openai.com/v1", "planted-key"),
        ("http://api.openai.com/v1", None),
        ("http://api.openai.com:443/v1", None),
        ("https://api.openai.com.evil.example/v1", None),
        ("https://api.openai.com:8443/v1", None),
    ):
        assert reward("judge", url)._client().token.value == value


def test_a_key_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "planted-key")
    replies: list[object] = [
        "planted-key",
        b"x" * 75 + b"planted-key",
        b'{"choices": "planted-key"}',
    ]
    for said in replies:
        with model(always(said)) as url:
            monkeypatch.setenv("OPENAI_API_KEY_HOST", url.removesuffix("/v1"))
            with pytest.raises(RewardError, match=r"^reward judge: ") as caught:
                reward("judge", url)(sample("a"))
            assert "plant" not in str(caught.value)
    monkeypatch.setenv("OPENAI_API_KEY", "wrong")
    with model(lambda text, image: "3") as url:
        monkeypatch.setenv("OPENAI_API_KEY_HOST", url.removesuffix("/v1"))
        with pytest.raises(RewardError, match=r"refused \(401\)$") as caught:
            reward("judge", url)(sample("a"))
    assert "wrong" not in str(caught.value)


@pytest.mark.parametrize(
    "reply",
    [
        "1" * 10**6,
        "1 " * (5 * 10**5),
        " " * 10**6 + "x",
        "1" + " " * 10**6 + "/",
        "/" * 10**6,
        "7/" + "1" * 10**6,
    ],
    ids=["digits", "digits and blanks", "blanks", "blanks inside", "slashes", "tens"],
)
def test_a_reply_of_a_million_letters_is_refused_at_once(reply: str) -> None:
    number = sys.modules[type(reward("judge", "http://127.0.0.1:1/v1")).__module__].number
    began = time.perf_counter()
    with pytest.raises(RewardError, match=r"^reward judge: expected a number from 0 to 10"):
        number(reply)
    assert time.perf_counter() - began < 1
    with (
        model(lambda text, image: reply) as url,
        pytest.raises(RewardError, match="does not answer with a text of 16 tokens"),
    ):
        reward("judge", url)(sample("a"))


@pytest.mark.parametrize(
    ("said", "score"),
    [
        ("OPEN", 1.0),
        ("open", 1.0),
        ("we are Op en today", 1.0),
        ("opan", 0.75),
        ("o", 0.25),
        ("NONE", 0.0),
        ("xyz", 0.0),
    ],
)
def test_text_is_read_without_case_and_spaces(said: str, score: float) -> None:
    with model(lambda text, image: said) as url:
        scores = reward("ocr", url)(sample('a neon sign that says "open"'))
    assert scores.tolist() == pytest.approx([score])


def test_a_prompt_without_quoted_words_is_refused_before_anything_is_asked() -> None:
    with pytest.raises(InputError, match='has no words in "quotes" to be read'):
        reward("ocr", "http://127.0.0.1:1/v1").validate_tasks([Task("a cat")])


@pytest.mark.parametrize(
    "fields", [{"url": ""}, {"model": ""}, {"url": "nowhere"}, {"url": "http://me:secret@host/v1"}]
)
def test_a_model_that_is_not_named_is_refused(fields: dict[str, str]) -> None:
    for name in ("judge", "ocr"):
        with pytest.raises(InputError) as caught:
            treerl.load("rewards", name)(**{"url": "http://127.0.0.1:1/v1", "model": "m", **fields})
        assert "secret" not in str(caught.value)
