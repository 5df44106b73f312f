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

from treerl.bench.worker import Reply, Task
from treerl.errors import PeerError

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
    for worker in workers:
        arguments = (tasks, waiting, replies)
        threading.Thread(target=worker.serve, args=arguments, daemon=True).start()
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


class _Worker:
    """One process, begun anew when it was killed."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = environment
        self.process: subprocess.Popen[str] | None = None
        self.ended = False
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

    def end(self) -> None:
        """Leave no process behind, and none half way through a cell."""
        with self.lock:
            self.ended = True
            process = self.process
        if process is None:
            return
        process.terminate()
        try:
            process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

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
        with self.lock:
            self.process = None
        return _lost(f"ended by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}")

    def _running(self) -> subprocess.Popen[str] | None:
        with self.lock:
            if self.process is None and not self.ended:
                # a session of its own: a terminal's Ctrl-C reaches it through us alone
                self.process = subprocess.Popen(
                    [sys.executable, "-m", "treerl.bench.worker"],
                    env={**os.environ, **self.environment},
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    start_new_session=True,
                )
            return self.process


def _lost(how: str) -> Reply:
    return {"points": [], "error": f"its process: {how}", "code": PeerError.code}
