"""Hear what the libjpeg within GDCM says of damage: it prints that to stderr, without a file's name, and goes on."""

import os
import re
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from features.common.files import STDERR, open_stderr

#: Lines that libjpeg prints (its jerror.h), by their first words.
_LINE = re.compile(
    rb"(?:Adobe |Application transferred|Bogus |CCIR601 |Corrupt JPEG|DCT coefficient|Didn't expect|Empty |Fractional "
    rb"|Huffman |Image too wide|Improper call|Inconsistent |Input file|Insufficient memory|Invalid |JPEG "
    rb"|Maximum supported|Missing Huffman|Must downscale|Not a JPEG|Not implemented yet|Premature end"
    rb"|Quantization table|Requested feature|Sampling factors|Sorry, there are|Suspension not|Too many color"
    rb"|Unexpected marker|Unknown A|Unrecognized component|Unsupported |Warning: (?:unknown|thumbnail)"
    rb"|spatial difference)[^\n]*\n"
)
#: Those that say that pixels are damaged, and are decoded all the same.
_OF_DAMAGE = (b"Corrupt JPEG", b"Inconsistent ", b"Premature end")
_hearing = threading.Lock()


@contextmanager
def hearing_damage() -> Iterator[list[str]]:
    """Collect what libjpeg says of damaged pixels in the block; its other words go, and those of others are passed on.

    stderr is a file in memory meanwhile. GDCM holds Python's lock while it decodes, so no thread of Python prints much
    then; what it does print comes a moment later.

    Yields:
        A list that is filled when the block ends.

    Raises:
        OSError: there are not enough file descriptors.
    """
    said: list[str] = []
    with _hearing, ExitStack() as closing:
        open_stderr()
        heard = closing.enter_context(os.fdopen(os.memfd_create("stderr"), "w+b"))
        own = os.dup(STDERR)
        closing.callback(os.close, own)
        os.dup2(heard.fileno(), STDERR)
        try:
            yield said
        finally:
            os.dup2(own, STDERR)
            heard.seek(0)
            words = heard.read()
            lines = _LINE.findall(words)
            said += [line.decode().strip() for line in lines if line.startswith(_OF_DAMAGE)]
            if others := _LINE.sub(b"", words):
                with suppress(OSError):  # nobody listens any more
                    os.write(own, others)
