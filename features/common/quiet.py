"""Keep what native libraries say on being imported off the terminal."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def silent_stderr() -> Iterator[None]:
    """Send stderr nowhere for the length of a `with` block.

    TensorFlow's C++ side writes to the file descriptor, past Python's sys.stderr and whatever the log level.
    """
    kept = os.dup(2)
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
