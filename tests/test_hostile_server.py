"""What a hostile or broken server answers is never believed."""

import gzip
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch

from treerl.engine.task import Samples
from treerl.errors import InputError, RewardError
from treerl.reward.call import measure, score
from treerl.reward.remote import Remote
from treerl.reward.tokens import TOKEN

SAMPLES = Samples.of(torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)), ["a", "b"])
TIMEOUT = 1.5
GOOD = {"protocol": 2, "ids": ["0", "1"], "scores": [0.25, 0.75]}


def answered(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def plain(**changes: object) -> bytes:
    return answered(json.dumps(GOOD | changes).encode())


def raw(scores: str) -> bytes:
    return answered(f'{{"protocol": 2, "ids": ["0", "1"], "scores": {scores}}}'.encode())


REPLIES: dict[str, bytes] = {
    "html": answered(b"<html>please log in</html>"),
    "empty object": answered(b"{}"),
    "not an object": answered(b"[0.25, 0.75]"),
    "no body": answered(b""),
    "nan": raw("[NaN, 1]"),
    "infinity": raw("[Infinity, 1]"),
    "too large a number": raw("[1e999, 1]"),
    "too large an integer": raw(f"[1{'0' * 400}, 1]"),
    "too many digits": raw(f"[1{'0' * 5000}, 1]"),
    "nested a hundred thousand deep": raw("[" * 30_000),
    "another protocol": plain(protocol=1),
    "protocol true": plain(protocol=True),
    "too few scores": plain(scores=[0.25]),
    "too many scores": plain(ids=["0", "1", "2"], scores=[0.25, 0.5, 0.75]),
    "repeated ids": plain(ids=["0", "0"]),
    "foreign ids": plain(ids=["0", "7"]),
    "ids of numbers": plain(ids=[0, 1]),
    "texts for scores": plain(scores=["0.25", "0.75"]),
    "truth for scores": plain(scores=[True, False]),
    "a scalar": plain(scores=0.5),
    "columns": plain(scores=[[0.25], [0.75]]),
    "a gigabyte": answered(b"1" * 2**20),
    "a gzip bomb": answered(gzip.compress(b"0" * 2**24), "200 OK", "Content-Encoding: gzip"),
    "a redirect": answered(b"", "302 Found", "Location: http://127.0.0.1:1/"),
    "refused": answered(b"", "401 Unauthorized"),
    "refused without a reason": answered(b"[]", "422 Unprocessable"),
    "a pickle": answered(b"\x80\x04\x95\x00."),
    "no http": b"hello\r\n\r\n",
}


@contextmanager
def serving(reply: Callable[[socket.socket, int, bytes], None]) -> Iterator[str]:
    """A server that says it scores images, and then does what it likes."""
    listener = socket.create_server(("127.0.0.1", 0))
    calls = [0]

    def loop() -> None:
        while True:
            try:
                link, _ = listener.accept()
            except OSError:
                return
            with link:
                question = link.recv(2**20)
                try:
                    if question.startswith(b"GET /health"):
                        health = {"protocol": 2, "modality": "images"}
                        link.sendall(answered(json.dumps(health).encode()))
                    else:
                        calls[0] += 1
                        reply(link, calls[0], question)
                except OSError:
                    continue

    threading.Thread(target=loop, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.close()


def always(reply: bytes) -> Callable[[socket.socket, int, bytes], None]:
    return lambda link, number, question: link.sendall(reply)


@pytest.mark.parametrize("name", REPLIES)
def test_no_hostile_reply_is_accepted(name: str) -> None:
    began = time.monotonic()
    with serving(always(REPLIES[name])) as url:
        remote = Remote.connect("m", url, TIMEOUT)
        with pytest.raises(RewardError, match=r"^reward m: ") as caught:
            score("m", remote, SAMPLES)
    assert str(caught.value).isprintable()
    assert time.monotonic() - began <= TIMEOUT + 2


@pytest.mark.parametrize(
    "measures",
    [
        None,
        {"right": [1]},
        {"right": [1, "x"]},
        {"\x1b[2J": [1, 1]},
        {"x" * 100: [1, 1]},
        {str(number): [1, 1] for number in range(100)},
    ],
    ids=["none", "short", "text", "escape", "long name", "many"],
)
def test_no_hostile_measure_is_accepted(measures: object) -> None:
    with serving(always(plain(measures=measures))) as url:
        remote = Remote.connect("m", url, TIMEOUT)
        with pytest.raises(RewardError, match=r"^reward m: .* does not answer as a reward"):
            measure("m", remote, SAMPLES)


def test_a_good_reply_is_accepted_in_any_order() -> None:
    with serving(always(plain(ids=["1", "0"]))) as url:
        assert score("m", Remote.connect("m", url, TIMEOUT), SAMPLES).tolist() == [0.75, 0.25]


def test_what_a_server_says_of_a_failure_is_shown_on_one_line() -> None:
    reply = answered(b'{"error": "out of\\n\\u001b[31m memory"}', "422 Unprocessable")
    with serving(always(reply)) as url:
        remote = Remote.connect("m", url, TIMEOUT)
        with pytest.raises(RewardError, match=r"^reward m: out of \\x1b\[31m memory$"):
            score("m", remote, SAMPLES)


def test_a_reply_that_drips_ends_at_the_timeout() -> None:
    def drip(link: socket.socket, number: int, question: bytes) -> None:
        for byte in plain():
            link.sendall(bytes([byte]))
            time.sleep(0.1)

    began = time.monotonic()
    with serving(drip) as url, pytest.raises(RewardError, match=r"within 1\.5 s"):
        Remote.connect("m", url, TIMEOUT)(SAMPLES)
    assert time.monotonic() - began <= TIMEOUT + 2


def test_what_may_pass_is_tried_again_and_what_will_not_is_not() -> None:
    calls: list[int] = []

    def busy(link: socket.socket, number: int, question: bytes) -> None:
        calls.append(number)
        link.sendall(answered(b"", "503 Busy") if number < 3 else plain())

    with serving(busy) as url:
        assert Remote.connect("m", url, 10.0)(SAMPLES).tolist() == [0.25, 0.75]
    assert calls == [1, 2, 3]
    calls.clear()

    def closed(link: socket.socket, number: int, question: bytes) -> None:
        calls.append(number)
        link.sendall(answered(b"", "404 Gone"))

    with serving(closed) as url, pytest.raises(RewardError, match=r"refused \(404\)"):
        Remote.connect("m", url, 10.0)(SAMPLES)
    assert calls == [1]


def test_a_token_goes_to_the_host_that_was_named_for_it_and_nowhere_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    questions: list[bytes] = []

    def noting(link: socket.socket, number: int, question: bytes) -> None:
        questions.append(question)
        link.sendall(plain())

    monkeypatch.setenv(TOKEN, "planted-secret\n")
    monkeypatch.delenv(f"{TOKEN}_HOST", raising=False)
    with serving(noting) as url:
        host = url.removeprefix("http://")
        for named in (None, "127.0.0.1:1", f"https://{host}", f"other:1 {host}", url):
            if named is not None:
                monkeypatch.setenv(f"{TOKEN}_HOST", named)
            Remote.connect("m", url, TIMEOUT)(SAMPLES)
    assert [b"planted-secret" in question for question in questions] == [False] * 3 + [True] * 2
    assert b"Authorization: Bearer planted-secret\r\n" in questions[-1]
    monkeypatch.setenv(TOKEN, "planted secret")
    with pytest.raises(InputError, match=f"^{TOKEN}: expected a token of ASCII") as caught:
        Remote.connect("m", url, TIMEOUT)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "reply",
    [
        answered(b'{"error": "who is planted-secret?"}', "422 Unprocessable"),
        answered(b"planted-secret planted-secret"),
        answered(b"x" * 50 + b"planted-secret"),
        plain(ids=["planted-secret", "0"]),
        plain(scores=["planted-secret", 1]),
        plain(protocol="planted-secret"),
        b"HTTP/1.1 planted-secret\r\n\r\n",
        b"x" * 295 + b"planted-secret\r\n\r\n",
    ],
)
def test_a_token_that_a_server_repeats_is_never_shown(
    reply: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TOKEN, "planted-secret")
    with serving(always(reply)) as url:
        monkeypatch.setenv(f"{TOKEN}_HOST", url)
        remote = Remote.connect("m", url, TIMEOUT)
        assert "planted" not in repr(remote.client)
        with pytest.raises(RewardError) as caught:
            score("m", remote, SAMPLES)
        assert "planted" not in str(caught.value)
        assert "plante" not in str(caught.value.__cause__ or "")


@pytest.mark.parametrize("name", [b"planted-secret", b"pl\\u0061nted-secret"])
def test_a_measure_is_not_called_like_the_token(
    name: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TOKEN, "planted-secret")
    body = b'{"protocol": 2, "measures": {"' + name + b'": [1, 1]}}'
    with serving(always(answered(body))) as url:
        monkeypatch.setenv(f"{TOKEN}_HOST", url)
        remote = Remote.connect("m", url, TIMEOUT)
        try:
            assert list(measure("m", remote, SAMPLES)) == ["***"]
        except RewardError as error:
            assert "called like the token" in str(error)
