"""Sizes of memory as people write them."""

import re

from treerl.errors import InputError, shorten

_SIZE = re.compile(r"(\d{1,9}(?:\.\d{1,9})?) ?([KMGT])(i?)B", re.ASCII | re.IGNORECASE)


def parse_size(text: str) -> int:
    """Bytes of a size such as 24GB (of 1000 MB) or 80GiB (of 1024 MiB)."""
    match = _SIZE.fullmatch(text.strip())
    size = 0
    if match is not None:
        number, unit, binary = match.groups()
        power = "KMGT".index(unit.upper()) + 1
        size = int(float(number) * (1024 if binary else 1000) ** power)
    if size == 0:
        raise InputError(f"--for: expected a size such as 24GB or 80GiB, got {shorten(text)}")
    return size
