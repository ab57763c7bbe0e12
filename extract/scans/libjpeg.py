"""Hear what the libjpeg within GDCM says of damage: it prints that to stderr, without a file's name, and goes on.

The libtiff within Pillow prints likewise, but Pillow reports the damage, too: what it prints is dropped.
"""

import atexit
import fcntl
import functools
import os
import re
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass

from features.common.files import STDERR, open_stderr

#: Lines that libjpeg prints (its jerror.h), by their first words; and those of libtiff, by its functions.
_LINE = re.compile(
    rb"(?:tempfile\.tif: |_?TIFF\w+: |\w*(?:Decode\w*|Setup|Fax3\w*|JPEGLib): |"
    rb"Adobe |Application transferred|Bogus |CCIR601 |Corrupt JPEG|DCT coefficient|Didn't expect|Empty |Fractional "
    rb"|Huffman |Image too wide|Improper call|Inconsistent |Input file|Insufficient memory|Invalid |JPEG "
    rb"|Maximum supported|Missing Huffman|Must downscale|Not a JPEG|Not implemented yet|Premature end"
    rb"|Quantization table|Requested feature|Sampling factors|Sorry, there are|Suspension not|Too many color"
    rb"|Unexpected marker|Unknown A|Unrecognized component|Unsupported |Warning: (?:unknown|thumbnail)"
    rb"|spatial difference)[^\n]*\n"
)
#: Those that say that pixels are damaged, and are decoded all the same.
_OF_DAMAGE = (b"Corrupt JPEG", b"Inconsistent ", b"Premature end")
_hearing = threading.Lock()


@dataclass
class _Memory:
    """A file in memory that takes the place of stderr now and then, and stays open.

    A thread that began to write to it may end a moment after stderr is back: its words wait there for the next reading.

    Attributes:
        file: its number.
        read: how many of its bytes have been read.
    """

    file: int
    read: int = 0

    def new_words(self, is_ended: bool) -> bytes:
        """What has been written since the last reading; a line that is still being written only where all has ended."""
        words = os.pread(self.file, os.fstat(self.file).st_size - self.read, self.read)
        whole = words if is_ended else words[: words.rfind(b"\n") + 1]
        self.read += len(whole)
        return whole


@functools.lru_cache(maxsize=1)
def _memory_of(process: int) -> _Memory:
    """Open a process's memory; what comes late is passed on when the process ends."""
    memory = _Memory(os.memfd_create("stderr"))
    fcntl.fcntl(memory.file, fcntl.F_SETFL, os.O_APPEND)
    atexit.register(_end, process, memory)
    return memory


def _end(process: int, memory: _Memory) -> None:
    """Pass on what came late, unless this is a fork of the process whose words they are."""
    if process == os.getpid():
        with _hearing:
            _pass_on(memory.new_words(is_ended=True), STDERR)


def _pass_on(words: bytes, file: int) -> None:
    """Write words of others."""
    if others := _LINE.sub(b"", words):
        with suppress(OSError):  # nobody listens any more
            os.write(file, others)


@contextmanager
def hearing_damage() -> Iterator[list[str]]:
    """Collect what libjpeg says of damaged pixels in the block; its other words go, and those of others are passed on.

    stderr is a file in memory meanwhile. GDCM holds Python's lock while it decodes, so no thread of Python prints much
    then. What it does print comes a moment later: after the block, after the next one, or when the process ends.

    Yields:
        A list that is filled when the block ends.

    Raises:
        OSError: there are not enough file descriptors.
    """
    said: list[str] = []
    with _hearing, ExitStack() as closing:
        open_stderr()
        memory = _memory_of(os.getpid())
        own = os.dup(STDERR)
        closing.callback(os.close, own)
        os.dup2(memory.file, STDERR)
        try:
            yield said
        finally:
            os.dup2(own, STDERR)
            words = memory.new_words(is_ended=False)
            said += [line.decode().strip() for line in _LINE.findall(words) if line.startswith(_OF_DAMAGE)]
            _pass_on(words, own)
