"""Ways to damage a file: what disks and networks do, and what a stranger may write."""

import struct
from collections.abc import Callable

import numpy as np

CANARY = "A_COMMAND_RAN"  # the file that a command in the words writes
_NUMBERS = (0, 1, 2**7, 2**15, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**64 - 1)
# What means something in YAML, JSON, pickles and headers of arrays.
_WORDS = (
    *(b"&a ", b"*a", b"<<: ", b"- ", b"[", b"{", b"}", b"]", b": ", b"#", b"(", b"\n", b"''"),
    *(b"9" * 12, b"9" * 400, b"1e999", b"-1", b"1:30", b"yes", b"null", b".nan", b"\0", b"},{"),
    *(b"\xff\xfe", b"name: ddpm\n", b"base: x.yaml\n", b"!!python/name:os.system "),
    *(b"c__builtin__\neval\n", b"R.", f"cos\nsystem\n(S'touch {CANARY}'\ntR".encode()),
)


def flipped(content: bytes, random: np.random.Generator) -> bytes:
    """One to eight bytes changed."""
    result = bytearray(content)
    for position in random.integers(len(result), size=random.integers(1, 9)):
        result[position] ^= int(random.integers(1, 256))
    return bytes(result)


def cut(content: bytes, random: np.random.Generator) -> bytes:
    """The end missing."""
    return content[: random.integers(len(content))]


def renumbered(content: bytes, random: np.random.Generator) -> bytes:
    """A field of 1, 2, 4 or 8 bytes with an extreme number, more often near the start or end."""
    size = int(random.choice([1, 2, 4, 8]))
    near = min(len(content), 400)
    place = int(random.choice([random.integers(near), random.integers(len(content)), -near]))
    place = place if place >= 0 else len(content) - 1 - int(random.integers(near))
    number = _NUMBERS[random.integers(len(_NUMBERS))] % 2 ** (8 * size)
    field = struct.pack("<Q", number)[:size]
    field = field if random.integers(2) else field[::-1]
    return content[:place] + field + content[place + size :]


def spliced(content: bytes, random: np.random.Generator) -> bytes:
    """A part missing, doubled, or in another place."""
    first, last, place = sorted(random.integers(len(content), size=3))
    part = content[first:last]
    rest = content[:first] + content[last:] if random.integers(2) else content
    return rest[:place] + part * int(random.integers(3)) + rest[place:]


def reworded(content: bytes, random: np.random.Generator) -> bytes:
    """Words of the formats put in, or over what was there."""
    for _ in range(random.integers(1, 4)):
        word = _WORDS[random.integers(len(_WORDS))] * int(random.choice([1, 1, 1, 50]))
        place = int(random.integers(len(content) + 1))
        content = content[:place] + word + content[place + len(word) * int(random.integers(2)) :]
    return content


WAYS: tuple[Callable[[bytes, np.random.Generator], bytes], ...] = (
    *(flipped, flipped, cut, renumbered, renumbered, spliced, reworded),
)


def damaged(content: bytes, random: np.random.Generator) -> bytes:
    """The content damaged in one or two ways."""
    for _ in range(random.integers(1, 3)):
        if content:
            content = WAYS[random.integers(len(WAYS))](content, random)
    return content
