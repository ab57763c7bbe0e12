"""Let what OpenCV says of memory be what Python says of it."""

from collections.abc import Iterator
from contextlib import contextmanager

import cv2

_NO_MEMORY = -4  # cv::Error::StsNoMem


@contextmanager
def naming_memory() -> Iterator[None]:
    """Turn failures of OpenCV to allocate into MemoryError, in a block or, as a decorator, in a function."""
    try:
        yield
    except cv2.error as error:
        if getattr(error, "code", 0) == _NO_MEMORY or "bad_alloc" in str(error):
            raise MemoryError from None
        raise
