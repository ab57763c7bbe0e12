"""Make the gallery's pictures small enough to stand within a page."""

import base64
import io
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from features.common.errors import InputError

#: Longer side of a picture in the page, in pixels: it is shown at some 160, on fine screens at twice that.
SIDE = 208
#: Of WebP, 0-100. Beside PNG of 256 pixels it takes a tenth of the bytes.
QUALITY = 82
#: Bytes of all pictures, as they stand in the page, at the most: with the rest it stays below 8 MB.
BUDGET = 6_000_000


@dataclass(frozen=True)
class Pictures:
    """The pictures of the gallery, as data URIs.

    Attributes:
        thumbnails: by the number of the image.
        heat: by the number of the label (from 0), a slash, and the number of the image.
        left_out: how many images have a picture that found no room in the page.
    """

    thumbnails: dict[str, str]
    heat: dict[str, str]
    left_out: int


def embed_pictures(cam: Path, wanted: Sequence[tuple[str, int]], budget: int = BUDGET) -> Pictures:
    """Read thumbnails and heat maps, until the page is full.

    Args:
        cam: the run's folder of pictures: `thumbnails/{image}.jpg`, `heat/{label}/{image}.png`.
        wanted: number of the image and number of the label (from 0), the most wanted first.
        budget: bytes that the data URIs may take together.

    Raises:
        InputError: a file is no picture.
    """
    thumbnails: dict[str, str] = {}
    heat: dict[str, str] = {}
    left_out: set[str] = set()
    for image, label in wanted:
        for of_kind, key, path in (
            (thumbnails, image, cam / "thumbnails" / f"{image}.jpg"),
            (heat, f"{label}/{image}", cam / "heat" / str(label) / f"{image}.png"),
        ):
            if key in of_kind or image in left_out or not path.is_file():
                continue
            try:
                uri = _data_uri(path)
            except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:  # all of them Pillow's
                raise InputError(f"{path} cannot be read ({error}). {how_to_remake(cam)}") from None
            if len(uri) > budget:
                left_out.add(image)
                continue
            budget -= len(uri)
            of_kind[key] = uri
    return Pictures(thumbnails, heat, len(left_out))


def how_to_remake(cam: Path) -> str:
    """Say which command makes the pictures of a run again; their folder lies in the run's."""
    return f"Make it again: python -m extract heat DATA {shlex.quote(str(cam.parent))}"


def _data_uri(path: Path) -> str:
    """Give a picture as a data URI of a small WebP.

    Raises:
        OSError: it is no picture; also ValueError, SyntaxError or DecompressionBombError, as Pillow has it.
    """
    with Image.open(path) as picture:
        small = picture.convert("RGBA" if picture.has_transparency_data else "RGB")
    small.thumbnail((SIDE, SIDE))
    stored = io.BytesIO()
    small.save(stored, "WEBP", quality=QUALITY, method=1)  # thrice as fast as the default, some bytes more
    return "data:image/webp;base64," + base64.b64encode(stored.getvalue()).decode("ascii")
