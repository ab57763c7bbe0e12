"""Damage the bytes of a file, as disks, networks and people do."""

import random
import struct
from collections.abc import Callable

Damage = Callable[[bytes, random.Random], bytes]


def flip_bits(content: bytes, generator: random.Random) -> bytes:
    """Flip 1 to 16 bits anywhere."""
    changed = bytearray(content)
    for _ in range(generator.choice((1, 1, 2, 4, 16))):
        changed[generator.randrange(len(changed))] ^= 1 << generator.randrange(8)
    return bytes(changed)


def flip_header(content: bytes, generator: random.Random) -> bytes:
    """Flip 1 to 4 bits among the first 128 bytes."""
    head = min(128, len(content))
    changed = bytearray(content)
    for _ in range(generator.choice((1, 2, 4))):
        changed[generator.randrange(head)] ^= 1 << generator.randrange(8)
    return bytes(changed)


def cut_off(content: bytes, generator: random.Random) -> bytes:
    """Leave the end out."""
    return content[: generator.randrange(1, len(content))]


def cut_a_little(content: bytes, generator: random.Random) -> bytes:
    """Leave the last few bytes out."""
    return content[: -generator.randrange(1, min(32, len(content)))]


def zero_span(content: bytes, generator: random.Random) -> bytes:
    """Write zeros over a span, as of a block that was never written."""
    start = generator.randrange(len(content))
    size = min(generator.choice((4, 16, 64, 512)), len(content) - start)
    return content[:start] + bytes(size) + content[start + size :]


def repeat_span(content: bytes, generator: random.Random) -> bytes:
    """Write a span twice."""
    start = generator.randrange(len(content))
    size = generator.choice((1, 8, 64, 512))
    return content[: start + size] + content[start:]


def drop_span(content: bytes, generator: random.Random) -> bytes:
    """Leave a span out."""
    start = generator.randrange(len(content))
    return content[:start] + content[start + generator.choice((1, 8, 64)) :]


def write_number(content: bytes, generator: random.Random) -> bytes:
    """Write a large or odd number over 2 or 4 bytes, mostly near the start, where sizes stand."""
    size = generator.choice((2, 4))
    value = generator.choice((0, 1, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)) & (256**size - 1)
    start = generator.randrange(max(1, min(len(content) - size, generator.choice((64, 256, len(content))))))
    number = struct.pack(generator.choice("<>") + {2: "H", 4: "I"}[size], value)
    return content[:start] + number + content[start + size :]


def add_junk(content: bytes, generator: random.Random) -> bytes:
    """Add bytes at the end."""
    return content + generator.randbytes(generator.choice((1, 100, 5000)))


def empty(content: bytes, generator: random.Random) -> bytes:
    """Leave nothing."""
    return b""


def noise(content: bytes, generator: random.Random) -> bytes:
    """Write random bytes instead."""
    return generator.randbytes(generator.choice((1, 16, len(content))))


def none(content: bytes, generator: random.Random) -> bytes:
    """Leave it whole: it has to be read."""
    return content


#: By name, in words that a case is told in.
DAMAGES: dict[str, Damage] = {
    "whole": none,
    "bits flipped": flip_bits,
    "bits of the header flipped": flip_header,
    "cut off": cut_off,
    "last bytes missing": cut_a_little,
    "zeros over a span": zero_span,
    "a span twice": repeat_span,
    "a span missing": drop_span,
    "a number written over": write_number,
    "bytes added": add_junk,
    "empty": empty,
    "random bytes": noise,
}
#: Those that leave most of a file; the others say little of a second format.
COMMON = tuple(name for name in DAMAGES if name not in ("empty", "random bytes", "whole"))


def choose(generator: random.Random) -> str:
    """Choose a damage: one in twelve leaves the file whole, and few leave nothing of it."""
    if generator.random() < 1 / 12:
        return "whole"
    return generator.choice(COMMON * 5 + ("empty", "random bytes"))
