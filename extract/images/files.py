"""Read the files of images: those of several images once, not for each."""

import threading
from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from features.common.files import digest
from features.store.images_table import Stamp

#: Files that stay: readers work on neighbouring images, at most of two files at a time.
_KEPT = 2


class Content(NamedTuple):
    """What was read of a file: its stamp, taken before the bytes; the bytes; and their digest."""

    stamp: Stamp
    encoded: bytes
    digest: bytes


@dataclass
class _Entry:
    """A file that stays, read by the first thread that needs it while the others wait."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    content: Content | None = None


class ImageFiles:
    """Reads the files of images, in any thread.

    Args:
        paths: the file of each image, in the order in which they are read: one that several images share stays until
            they are behind.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._shared = {path for path, count in Counter(paths).items() if count > 1}
        self._entries: OrderedDict[tuple[Path, Stamp], _Entry] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, path: Path) -> Content:
        """Read a file, or take it from the last ones if it has not changed since.

        Raises:
            OSError: the file cannot be read.
        """
        stamp = Stamp.of(path)  # before the bytes: what is written from now on has another
        if path not in self._shared:
            return _read(path, stamp)
        with self._lock:
            entry = self._entries.setdefault((path, stamp), _Entry())
            self._entries.move_to_end((path, stamp))
            while len(self._entries) > _KEPT:
                self._entries.popitem(last=False)
        with entry.lock:
            if entry.content is None:
                entry.content = _read(path, stamp)
            return entry.content


def _read(path: Path, stamp: Stamp) -> Content:
    """Read a file that had a stamp."""
    encoded = path.read_bytes()
    return Content(stamp, encoded, digest(encoded))
