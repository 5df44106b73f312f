"""Whom a reward server serves, what it refuses, and what cannot stop it."""

import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from misbehaving import GOOD, Misbehaving
from safetensors.torch import save
from torch import Tensor

from treerl.engine.task import Samples
from treerl.errors import InputError
from treerl.reward import wire
from treerl.reward.contract import Reward
from treerl.reward.remote import Remote
from treerl.reward.server import Server
from treerl.reward.tokens import TOKEN

IMAGES = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
SAMPLES = Samples.of(IMAGES, ["fine", "b"])
FINE = wire.question(SAMPLES.tasks, SAMPLES)


@contextmanager
def served(
    reward: Reward | None = None, token: str | None = None, limit: int = 2**20, timeout: float = 5.0
) -> Iterator[Server]:
    with Server("m", reward or Misbehaving(), "127.0.0.1", 0, token, timeout, limit) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def ask(
    server: Server, body: bytes, path: str = "/score", **headers: str
) -> tuple[int, dict[str, Any]]:
    link = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    try:
        link.request("POST", path, body, headers)
        with link.getresponse() as response:
            return response.status, json.loads(response.read())
    finally:
        link.close()


def test_another_address_than_this_machines_needs_a_token(capsys: Any) -> None:
    for host in ("0.0.0.0", "192.0.2.1", "::", "example.org"):
        with pytest.raises(InputError, match=f"needs a token in the variable {TOKEN}"):
            Server("m", Misbehaving(), host, 0, None)
    Server("m", Misbehaving(), "0.0.0.0", 0, "secret").server_close()


def test_a_token_is_asked_for_and_its_line_break_does_not_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with served(token="planted-secret") as server:
        assert ask(server, FINE)[0] == 401
        for wrong in ("Bearer wrong", "Bearer planted-secre", "planted-secret", "\xff"):
            assert ask(server, FINE, Authorization=wrong)[0] == 401
        assert ask(server, FINE, Authorization="Bearer planted-secret")[0] == 200
        url = f"http://127.0.0.1:{server.port}"
        monkeypatch.setenv(TOKEN, "planted-secret\r\n")
        words = rf"refused \(401\); {TOKEN} was not sent, as {TOKEN}_HOST does not name 127.0.0.1"
        with pytest.raises(InputError, match=words):
            Remote.connect("m", url, 5.0)
        monkeypatch.setenv(f"{TOKEN}_HOST", f"127.0.0.1:{server.port}")
        assert Remote.connect("m", url, 5.0)(SAMPLES).tolist() == [GOOD] * 2
        monkeypatch.setenv(TOKEN, "other-secret")
        with pytest.raises(InputError, match=r"refused \(401\)$") as caught:
            Remote.connect("m", url, 5.0)
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "evil.example:{port}"},
        {"Host": "127.0.0.1:1"},
        {"Host": "127.0.0.1"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:{port}"},
    ],
)
def test_a_web_page_cannot_use_a_server(headers: dict[str, str]) -> None:
    with served() as server:
        filled = {name: value.format(port=server.port) for name, value in headers.items()}
        assert ask(server, FINE, **filled)[0] == 403
        assert ask(server, FINE, Host=f"localhost:{server.port}")[0] == 200


def test_another_address_of_this_machine_is_served_under_its_name() -> None:
    with Server("m", Misbehaving(), "127.0.0.2", 0, None) as server:
        assert server.is_called(f"127.0.0.2:{server.port}")
        assert not server.is_called(f"127.0.0.3:{server.port}")


def header(**changes: object) -> bytes:
    row: dict[str, object] = {
        "prompt": "fine",
        "negative": None,
        "media": {},
        "metadata": {},
        "size": None,
    }
    metadata = {"protocol": "2", "tasks": json.dumps([row | changes])}
    tensors = {"images": IMAGES[:1].contiguous(), "group": torch.zeros(1, dtype=torch.int64)}
    return save(tensors, metadata)


@pytest.mark.parametrize(
    "body",
    [
        b"junk",
        b"",
        b"\x80\x04\x95\x00.",
        b"\xff" * 64,
        FINE[: len(FINE) // 2],
        save({}, {"protocol": "2", "tasks": "[]"}),
        save({"images": IMAGES}, {"protocol": "1", "tasks": "[]"}),
        save({"images": IMAGES}, {"protocol": "2", "tasks": "[" * 100_000}),
        save({"images": IMAGES.double()}, {"protocol": "2", "tasks": "[]"}),
        wire.question(["fine"], SAMPLES),
        header(prompt=1),
        header(negative=[]),
        header(media={"image": ["media.0", ".png"]}),
        header(media={"image": ["images", ".png"]}),
        header(size=["x", "y"]),
        header(metadata=3),
    ],
    ids=lambda body: f"{len(body)} bytes",  # safetensors writes its header in any order
)
def test_what_is_no_question_is_refused(body: bytes) -> None:
    with served() as server:
        assert ask(server, body)[0] == 400
        assert ask(server, FINE)[0] == 200


def test_files_are_written_nowhere_but_into_the_servers_own_folder() -> None:
    seen: list[Path] = []

    class Noting(Reward):
        def __call__(self, samples: Samples) -> Tensor:
            seen.extend(samples.tasks[0].media.values())
            assert seen[-1].read_bytes() == b"abc"
            return torch.zeros(len(samples))

    metadata = {"protocol": "2"}
    tensors = {
        "images": IMAGES[:1].contiguous(),
        "group": torch.zeros(1, dtype=torch.int64),
        "media.0": torch.tensor(list(b"abc"), dtype=torch.uint8),
    }
    row: dict[str, object] = {"prompt": "a", "negative": None, "metadata": {}, "size": None}
    with served(Noting()) as server:
        for suffix in (".png", "/../../x", ".a/b", "../../" * 9 + "tmp/x"):
            media = {"media": {"image": ["media.0", suffix]}}
            tasks = json.dumps([row | media])
            assert ask(server, save(tensors, metadata | {"tasks": tasks}))[0] == 200
    assert {path.name for path in seen} == {"0.png", "0"}
    assert not any(path.parent.exists() for path in seen)  # and nothing is left behind


def test_sizes_paths_and_methods_are_refused_and_nothing_inside_is_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with served() as server:
        assert ask(server, b"x" * (2**20 + 1))[0] == 413
        assert ask(server, FINE, "/nothing")[0] == 404
        assert ask(server, FINE, "/score/../health")[0] == 404
        link = socket.create_connection(("127.0.0.1", server.port))
        link.sendall(f"POST /score HTTP/1.1\r\nHost: localhost:{server.port}\r\n\r\n".encode())
        assert b" 411 " in link.recv(4096)
        link.close()
        raises = Samples.of(IMAGES, ["raises", "b"])
        answer = ask(server, wire.question(raises.tasks, raises))
        assert answer == (422, {"protocol": 2, "error": "the reward failed"})
    log = capsys.readouterr().err  # the server's own log says why
    assert "treerl: reward m: ValueError: no such thing\\x1b[31m" in log and "\x1b" not in log


def test_idle_and_dripping_connections_do_not_stop_a_server() -> None:
    before = threading.active_count()
    with served() as server, contextlib.ExitStack() as links:
        for number in range(300):
            link = socket.create_connection(("127.0.0.1", server.port))
            links.enter_context(link)
            if number % 2:
                with contextlib.suppress(OSError):
                    link.sendall(b"POST /score HTTP/1.1\r\nHost: ")
        began = time.monotonic()
        assert ask(server, FINE)[0] == 200
        assert time.monotonic() - began < 5
        assert threading.active_count() - before < 150  # one for each connection that is kept


def test_a_call_that_hangs_holds_nobody_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("treerl.reward.handler._LINGER", 0.1)
    hangs = Samples.of(IMAGES, ["hangs", "b"])
    with served(timeout=0.5) as server:
        message = wire.question(hangs.tasks, hangs)
        threads = [
            threading.Thread(target=lambda: ask_quietly(server, message), daemon=True)
            for _ in range(60)
        ]
        for thread in threads:
            thread.start()
        began = time.monotonic()
        assert ask(server, FINE)[0] == 503
        assert time.monotonic() - began < 5


def ask_quietly(server: Server, message: bytes) -> None:
    try:
        ask(server, message)
    except OSError:
        return
