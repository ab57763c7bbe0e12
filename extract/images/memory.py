"""Tell damage of a file from a lack of memory or of file descriptors, whatever a decoder calls it."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

import cv2

from extract.images.reading import UnreadableImage

_NO_MEMORY = -4  # cv::Error::StsNoMem
#: What the system answers where it has no more of something: no file is to blame.
_LACKS = (errno.ENOMEM, errno.EMFILE, errno.ENFILE)


@contextmanager
def naming_memory() -> Iterator[None]:
    """Turn failures of OpenCV to allocate into MemoryError, in a block or, as a decorator, in a function."""
    try:
        yield
    except cv2.error as error:
        if getattr(error, "code", 0) == _NO_MEMORY or "bad_alloc" in str(error):
            raise MemoryError from None
        raise


@contextmanager
def naming_damage(reason: str) -> Iterator[None]:
    """Turn what a foreign decoder raises of a damaged file, which may be anything, into UnreadableImage.

    Args:
        reason: what is said of the file.

    Raises:
        MemoryError: there is not enough memory, of which the file knows nothing.
        OSError: there are not enough file descriptors, likewise.
    """
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _LACKS:
            raise
        raise UnreadableImage(reason) from None
