"""Know of a TIFF file what OpenCV, which decodes it, does not heed."""

import io
from collections.abc import Mapping

import numpy as np
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from extract.images.reading import UnreadableImage

#: Tags of TIFF 6.0.
_BITS, _PHOTOMETRIC, _PLANES = 258, 262, 284
_WHITE_IS_ZERO, _SEPARATE = (0,), (2,)


def read_tags(encoded: bytes) -> Mapping[int, tuple[int, ...]]:
    """Read the tags of the first page of a TIFF file that hold whole numbers; none where it is damaged."""
    file = io.BytesIO(encoded)
    try:
        size = 16 if encoded[2:3] == b"+" else 8  # 43, a plus sign, marks BigTIFF
        tags = ImageFileDirectory_v2(file.read(size))
        file.seek(tags.next)
        tags.load(file)
        values = {tag: value if isinstance(value, tuple) else (value,) for tag, value in tags.items()}
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - a damaged header can fail anywhere inside Pillow
        return {}
    return {tag: value for tag, value in values.items() if all(isinstance(number, int) for number in value)}


def is_deep_tiff(tags: Mapping[int, tuple[int, ...]]) -> bool:
    """Whether tags are of a TIFF file of more than 8 bits a channel, in which OpenCV heeds what libtiff says."""
    return max(tags.get(_BITS, ()), default=0) > 8


def refuse_planes(tags: Mapping[int, tuple[int, ...]]) -> None:
    """Refuse channels of more than 8 bits in separate planes: OpenCV leaves most to chance.

    Raises:
        UnreadableImage: the file is such a one.
    """
    bits = tags.get(_BITS, ())
    if tags.get(_PLANES) == _SEPARATE and len(bits) > 1 and max(bits) > 8:
        raise UnreadableImage(
            f"its channels of {max(bits)} bits lie in separate planes (PlanarConfiguration 2): save it interleaved"
        )


def invert_where_white_is_zero(stored: np.ndarray, tags: Mapping[int, tuple[int, ...]]) -> None:
    """Invert, in place, grey levels of 16 bits of which the least is white; those of 8 bits OpenCV inverts itself."""
    if stored.dtype == np.uint16 and tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        np.invert(stored, out=stored)
