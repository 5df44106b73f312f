"""What a hostile or broken server answers is never believed; what a hostile client asks is never served."""

import gzip
import http.client
import io
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from misbehaving import Misbehaving

from treerl.errors import InputError, RewardError
from treerl.reward import wire
from treerl.reward.contract import score
from treerl.reward.remote import TOKEN, Remote
from treerl.reward.server import Server

IMAGES = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
DEADLINE = 1.5
GOOD = {"protocol": 1, "ids": ["0", "1"], "scores": [0.25, 0.75]}


def answered(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def plain(**changes: object) -> bytes:
    return answered(json.dumps(GOOD | changes).encode())


REPLIES: dict[str, bytes] = {
    "html": answered(b"<html>please log in</html>"),
    "empty object": answered(b"{}"),
    "not an object": answered(b"[0.25, 0.75]"),
    "no body": answered(b""),
    "nan": answered(b'{"protocol": 1, "ids": ["0", "1"], "scores": [NaN, 1]}'),
    "infinity": answered(b'{"protocol": 1, "ids": ["0", "1"], "scores": [Infinity, 1]}'),
    "too large a number": answered(b'{"protocol": 1, "ids": ["0", "1"], "scores": [1e999, 1]}'),
    "another protocol": plain(protocol=2),
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
    "a pickle": answered(b"\x80\x04\x95\x00."),
    "no http": b"hello\r\n\r\n",
}


@contextmanager
def serving(reply: Callable[[socket.socket, int], None]) -> Iterator[str]:
    """A server that says it scores pictures, and then does what it likes."""
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
                        link.sendall(
                            answered(json.dumps({"protocol": 1, "takes": "images"}).encode())
                        )
                    else:
                        calls[0] += 1
                        reply(link, calls[0])
                except OSError:
                    continue

    threading.Thread(target=loop, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.close()


@pytest.mark.parametrize("name", REPLIES)
def test_s5_no_hostile_reply_is_accepted(name: str) -> None:
    began = time.monotonic()
    with serving(lambda link, _: link.sendall(REPLIES[name])) as url:
        remote = Remote("m", url, DEADLINE)
        with pytest.raises(RewardError, match=r"^reward m: "):
            score("m", remote, IMAGES, ["a", "b"])
    assert time.monotonic() - began <= DEADLINE + 2


def test_a_good_reply_is_accepted_in_any_order() -> None:
    with serving(lambda link, _: link.sendall(plain(ids=["1", "0"]))) as url:
        assert score("m", Remote("m", url, DEADLINE), IMAGES, ["a", "b"]).tolist() == [0.75, 0.25]


def test_r6_a_reply_that_drips_ends_at_the_deadline() -> None:
    def drip(link: socket.socket, _: int) -> None:
        for byte in plain():
            link.sendall(bytes([byte]))
            time.sleep(0.1)

    began = time.monotonic()
    with serving(drip) as url, pytest.raises(RewardError, match=r"within 1\.5 s"):
        Remote("m", url, DEADLINE)(IMAGES, ["a", "b"])
    assert time.monotonic() - began <= DEADLINE + 2


def test_r7_what_may_pass_is_tried_again_and_what_will_not_is_not() -> None:
    calls: list[int] = []

    def busy(link: socket.socket, number: int) -> None:
        calls.append(number)
        link.sendall(answered(b"", "503 Busy") if number < 3 else plain())

    with serving(busy) as url:
        assert Remote("m", url, 10.0)(IMAGES, ["a", "b"]).tolist() == [0.25, 0.75]
    assert calls == [1, 2, 3]
    calls.clear()

    def closed(link: socket.socket, number: int) -> None:
        calls.append(number)
        link.sendall(answered(b"", "404 Gone"))

    with serving(closed) as url, pytest.raises(RewardError, match=r"refused \(404\)"):
        Remote("m", url, 10.0)(IMAGES, ["a", "b"])
    assert calls == [1]


@contextmanager
def served(token: str | None = None, most: int = 2**20) -> Iterator[tuple[str, int]]:
    with Server("m", Misbehaving(), "127.0.0.1", 0, token, most) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield "127.0.0.1", server.server_address[1]
        server.shutdown()


def ask(place: tuple[str, int], body: bytes, **headers: str) -> tuple[int, dict[str, object]]:
    link = http.client.HTTPConnection(*place, timeout=10)
    link.request("POST", "/score", body, headers)
    response = link.getresponse()
    found = response.status, json.loads(response.read())
    link.close()
    return found


def test_s6_a_server_serves_its_own_machine_or_who_knows_the_token(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for host in ("0.0.0.0", "192.0.2.1", "::"):
        with pytest.raises(InputError, match="needs a token in the variable TREERL_REWARD_TOKEN"):
            Server("m", Misbehaving(), host, 0, None)
    body = wire.request(IMAGES, ["fine", "b"])
    with served("planted-secret") as place:
        assert ask(place, body)[0] == 401
        assert ask(place, body, Authorization="Bearer wrong")[0] == 401
        assert ask(place, body, Authorization="Bearer planted-secret")[0] == 200
        monkeypatch.setenv(TOKEN, "planted-secret")
        assert Remote("m", f"http://{place[0]}:{place[1]}", 5.0)(
            IMAGES, ["fine", "b"]
        ).tolist() == [0.5, 0.5]
        monkeypatch.setenv(TOKEN, "other-secret")
        with pytest.raises(InputError, match=r"refused \(401\)") as caught:
            Remote("m", f"http://{place[0]}:{place[1]}", 5.0)
        assert "secret" not in str(caught.value)  # S7


def test_s6_what_is_no_question_is_refused_and_nothing_inside_is_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.array([os.getcwd], dtype=object), allow_pickle=True)
    header = {"protocol": 1, "ids": ["0"], "prompts": ["fine"]}
    with served() as place:
        assert ask(place, b"x" * (2**20 + 1))[0] == 413
        assert ask(place, b"junk")[0] == 400
        assert ask(place, wire.packed(header, buffer.getvalue()))[0] == 400  # a pickle inside npy
        assert ask(place, wire.packed(header, b"\x93NUMPY\x01\x00\xff\xff"))[0] == 400
        assert (
            ask(
                place, wire.packed({**header, "prompts": [1]}, wire.request(IMAGES[:1], ["x"])[50:])
            )[0]
            == 400
        )
        assert ask(place, wire.request(IMAGES, ["fine"]))[0] == 400
        status, told = ask(place, wire.request(IMAGES, ["raises", "b"]))
        assert status == 422 and told == {"protocol": 1, "error": "the reward failed"}
        assert ask(place, wire.request(IMAGES, ["fine", "b"]))[1]["scores"] == [0.5, 0.5]
    assert "no such thing" in capsys.readouterr().err  # the server's own log says why
