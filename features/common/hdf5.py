"""What is checked of an HDF5 file before its arrays are read."""

import io
import math
from typing import Any

#: Deflate makes of a byte at most this many: zlib.net/zlib_tech.html.
_DEFLATE = 1032


def refuse_inflated(content: io.BytesIO) -> None:
    """Refuse a file that says of an array that it is larger than its bytes can hold, packed or not.

    Raises:
        ValueError: it is; the message names the array and its shape.
        OSError: the bytes are no HDF5 file.
    """
    import h5py

    limit = _DEFLATE * content.getbuffer().nbytes

    def check(name: str, found: Any) -> None:
        if isinstance(found, h5py.Dataset) and math.prod(found.shape or ()) * found.dtype.itemsize > limit:
            raise ValueError(f"{name} has shape {found.shape}, too much for the file")

    with h5py.File(content) as file:
        file.visititems(check)
