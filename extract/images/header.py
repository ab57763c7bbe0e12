"""Read what the header of an image file says, without its pixels."""

import io
import warnings
from dataclasses import dataclass
from typing import BinaryIO

from PIL import Image

Image.MAX_IMAGE_PIXELS = None  # our own limit is asked for the size; Pillow's would refuse to say it
# What Pillow doubts in a file, the decoder refuses or reads. Not around each call: that is not safe in threads.
warnings.filterwarnings("ignore", module=r"PIL\.")
#: The tag of the orientation, of EXIF and of TIFF.
_ORIENTATION = 274
_BITS_PER_SAMPLE = 258
#: The formats whose headers, as Pillow reads them, do not say how many bits a channel has.
_MAYBE_DEEP = frozenset({"JPEG2000", "AVIF", "HEIF"})


@dataclass(frozen=True)
class Header:
    """What a header says.

    Attributes:
        kind: the format, as Pillow calls it: `JPEG`, `PNG`, ...
        width: columns, in pixels.
        height: rows, in pixels.
        is_deep: whether its channels may have more than 8 bits.
        orientation: how to turn it upright, as EXIF numbers it: 1 to 8.
        has_deep_alpha: whether it is PNG or TIFF with transparency beside colours of 16 bits.
    """

    kind: str
    width: int
    height: int
    is_deep: bool
    orientation: int
    has_deep_alpha: bool = False

    @classmethod
    def read(cls, file: BinaryIO) -> "Header | None":
        """Read the header of an open file; None where there is none that is known."""
        try:
            with Image.open(file) as image:
                kind, (width, height) = image.format or "", image.size
                # Pillow looks for EXIF behind the pixels of a PNG, and decodes them for it.
                tags = {} if kind == "PNG" and "exif" not in image.info else image.getexif()
                bits = tags.get(_BITS_PER_SAMPLE, 8)
                orientation = tags.get(_ORIENTATION, 1)
                bands = image.getbands()
                has_alpha = "R" in bands and ("A" in bands or "transparency" in image.info)
            if kind == "PNG":
                file.seek(24)  # the bit depth, in the chunk IHDR (PNG specification, 11.2.1)
                bits = file.read(1)[0]
        except MemoryError:
            raise
        except Exception:  # noqa: BLE001 - a damaged header can fail anywhere inside Pillow
            return None
        is_deep = kind in _MAYBE_DEEP or max(bits if isinstance(bits, tuple) else (bits,)) > 8
        has_deep_alpha = is_deep and has_alpha and kind in ("PNG", "TIFF")
        return cls(kind, width, height, is_deep, orientation if orientation in range(1, 9) else 1, has_deep_alpha)

    @classmethod
    def of(cls, encoded: bytes) -> "Header | None":
        """Read the header of a file's bytes."""
        return cls.read(io.BytesIO(encoded))
