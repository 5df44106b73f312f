"""The process that a worker's reward lives in: questions on stdin, answers on what was stdout, nothing else."""

import os
import struct
import sys
from typing import BinaryIO

from treerl.reward import wire


def main() -> None:
    questions = sys.stdin.buffer
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a reward prints goes to stderr
    first = _read(questions)
    if first is None:
        return
    from treerl import registry
    from treerl.errors import TreerlError
    from treerl.reward.contract import checked

    header, _ = wire.unpacked(first)
    try:
        (reward,) = registry.build_rewards([header["name"]], header["options"]).values()
    except TreerlError as error:
        _write(answers, wire.packed({"protocol": wire.PROTOCOL, "error": str(error)}))
        return
    _write(answers, wire.packed({"protocol": wire.PROTOCOL, "takes": reward.takes}))
    while (question := _read(questions)) is not None:  # None: the run is gone, and so is this
        asked, rest = wire.unpacked(question)
        try:
            if "refuse" in asked:
                reward.refuse(asked["refuse"])
                _write(answers, wire.packed({"protocol": wire.PROTOCOL}))
                continue
            found = checked(header["name"], reward, wire.samples(rest), asked["prompts"])
            answer = wire.reply(asked["ids"], found)
        except TreerlError as error:
            answer = {"protocol": wire.PROTOCOL, "error": str(error)}
        _write(answers, wire.packed(answer))


def _read(source: BinaryIO) -> bytes | None:
    length = source.read(wire.LENGTH)
    if len(length) < wire.LENGTH:
        return None
    (count,) = struct.unpack(">Q", length)
    found = source.read(count)
    return found if len(found) == count else None


def _write(target: BinaryIO, message: bytes) -> None:
    target.write(struct.pack(">Q", len(message)) + message)
    target.flush()


if __name__ == "__main__":
    main()
