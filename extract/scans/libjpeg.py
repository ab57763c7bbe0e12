"""Hear what the libjpeg within GDCM says of damage: it prints that to stderr, without a file's name, and goes on."""

import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

#: Lines that libjpeg prints (its jerror.h), by their first words.
_LINE = re.compile(
    rb"(?:Adobe |Application transferred|Bogus |Corrupt JPEG|DCT coefficient|Empty |Fractional |Huffman |Image too wide"
    rb"|Inconsistent |Input file|Insufficient memory|Invalid |JPEG |Maximum supported|Missing Huffman|Not a JPEG"
    rb"|Premature end|Quantization table|Sampling factors|Sorry, there are|Too many color|Unexpected marker|Unknown A"
    rb"|Unrecognized component|Unsupported |Warning: (?:unknown|thumbnail)|spatial difference)[^\n]*\n"
)
#: Those that say that pixels are damaged, and are decoded all the same.
_OF_DAMAGE = (b"Corrupt JPEG", b"Inconsistent ", b"Premature end")
_STDERR = 2
_hearing = threading.Lock()


@contextmanager
def hearing_damage() -> Iterator[list[str]]:
    """Collect what libjpeg says of damaged pixels in the block; its other words go, and those of others are passed on.

    stderr is a file in memory meanwhile. GDCM holds Python's lock while it decodes, so no thread of Python prints much
    then; what it does print comes a moment later.

    Yields:
        A list that is filled when the block ends.
    """
    said: list[str] = []
    with _hearing:
        try:
            own = os.dup(_STDERR)
        except OSError:  # it is closed: nobody hears libjpeg
            yield said
            return
        with os.fdopen(os.memfd_create("stderr"), "w+b") as heard:
            os.dup2(heard.fileno(), _STDERR)
            try:
                yield said
            finally:
                os.dup2(own, _STDERR)
                heard.seek(0)
                words = heard.read()
                lines = _LINE.findall(words)
                said += [line.decode().strip() for line in lines if line.startswith(_OF_DAMAGE)]
                if others := _LINE.sub(b"", words):
                    with suppress(OSError):  # nobody listens any more
                        os.write(own, others)
                os.close(own)
