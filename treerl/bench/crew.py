"""Worker processes side by side: cells are given out, replies come back as they are ready."""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from treerl.errors import PeerError

Task = dict[str, Any]  # what a worker reads: config, budget, marks, allow_plugins
Reply = dict[str, Any]  # what it answers: points, and of a cell that failed error and code

COMMAND = [sys.executable, "-m", "treerl.bench.worker"]
_LOOK = 0.2  # seconds between two looks at what the user wants
_GRACE = 5.0  # seconds in which a worker can end
Waiting = queue.SimpleQueue[int]
Replies = queue.SimpleQueue[tuple[int, Reply | BaseException]]


def work(
    tasks: Sequence[Task],
    environments: Sequence[Mapping[str, str]],
    check_interrupt: Callable[[], None],
) -> Iterator[tuple[int, Reply]]:
    """(place, reply) of every task, in the order in which they end; a worker an environment."""
    waiting: Waiting = queue.SimpleQueue()
    for place in range(len(tasks)):
        waiting.put(place)
    replies: Replies = queue.SimpleQueue()
    workers = [_Worker(environment) for environment in environments]
    threads = []
    for worker in workers:
        arguments = (tasks, waiting, replies)
        threads.append(threading.Thread(target=worker.serve, args=arguments, daemon=True))
        threads[-1].start()
    left = len(tasks)
    try:
        while left:
            check_interrupt()
            try:
                place, reply = replies.get(timeout=_LOOK)
            except queue.Empty:
                continue
            if isinstance(reply, BaseException):
                raise reply
            left -= 1
            yield place, reply
    finally:
        for worker in workers:
            worker.end()
        for thread in threads:  # each meets the end of its worker's stream
            thread.join()


class _Worker:
    """One process, begun anew when it was killed."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = environment
        self.process: subprocess.Popen[str] | None = None
        self.ended = False
        self.idle = threading.Event()  # set when nothing more is asked
        self.lock = threading.Lock()  # nothing is begun after the end

    def serve(self, tasks: Sequence[Task], waiting: Waiting, replies: Replies) -> None:
        """Take tasks as long as there are any."""
        with suppress(queue.Empty):
            while not self.ended:
                place = waiting.get_nowait()
                try:
                    replies.put((place, self._ask(tasks[place])))
                except BaseException as error:  # the main thread waits for it
                    replies.put((place, error))
        self.idle.wait()  # the streams stay open until the process is ended
        self._close()

    def end(self) -> None:
        """Leave no process behind, and none half way through a cell."""
        with self.lock:
            self.ended = True
            process = self.process
        if process is not None:
            process.terminate()
            try:
                process.wait(_GRACE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.idle.set()

    def _ask(self, task: Task) -> Reply:
        process = self._running()
        if process is None or process.stdin is None or process.stdout is None:
            return _lost("not begun")
        with suppress(BrokenPipeError):
            process.stdin.write(json.dumps(task) + "\n")
            process.stdin.flush()
        line = process.stdout.readline()
        if line:
            reply: Reply = json.loads(line)
            return reply
        code = process.wait()
        self._close()
        return _lost(f"ended by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}")

    def _close(self) -> None:
        """Let go of a process that has ended."""
        with self.lock:
            process = self.process
            self.process = None
        for stream in (process.stdin, process.stdout) if process else ():
            with suppress(BrokenPipeError):  # what it did not read
                if stream is not None:
                    stream.close()

    def _running(self) -> subprocess.Popen[str] | None:
        with self.lock:
            if self.process is None and not self.ended:
                # a session of its own: a terminal's Ctrl-C reaches it through us alone
                self.process = subprocess.Popen(
                    COMMAND,
                    env={**os.environ, **self.environment},
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    start_new_session=True,
                )
            return self.process


def _lost(how: str) -> Reply:
    return {"points": [], "error": f"its process: {how}", "code": PeerError.code}
