"""The two photographs that come with scikit-learn: what they show, and views of them."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np

from extract.images.decoding import decode
from extract.images.reading import Reading
from extract.images.resizing import resize
from features.common.errors import InputError

#: Classes of ImageNet-1k that fit what a photograph shows, by index. The flower is a dahlia, which ImageNet does not
#: have: a daisy is nearest; an insect may sit on it, and one network of three sees a honeycomb in its petals.
EXPECTED: dict[str, dict[int, str]] = {
    "china.jpg": {
        442: "bell cote", 483: "castle", 497: "church", 538: "dome", 663: "monastery", 668: "mosque", 698: "palace",
        832: "stupa",
    },
    "flower.jpg": {309: "bee", 599: "honeycomb", 984: "rapeseed", 985: "daisy", 986: "yellow lady's slipper"},
}  # fmt: skip
#: Top edges, left edges and side of the crops; the views of the same crops are closer by as many pixels.
_TOPS, _LEFTS, _SIDE, _CLOSER = (0, 203), (0, 208, 416), 224, 12


def load_photographs() -> dict[str, np.ndarray]:
    """Decode the photographs.

    Returns:
        By name uint8 (427, 640, 3), RGB.

    Raises:
        InputError: scikit-learn's installation does not have them.
    """
    found = find_spec("sklearn")
    folders = [Path(folder) / "datasets" / "images" for folder in (found and found.submodule_search_locations) or ()]
    photographs = {}
    for name in EXPECTED:
        path = next((path for folder in folders if (path := folder / name).is_file()), None)
        if path is None:
            raise InputError(f"the photograph {name} of scikit-learn is missing. Run: scripts/setup.sh")
        photographs[name] = decode(path.read_bytes(), name, Reading())[0]
    return photographs


def crop_photographs(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Crop both photographs in six places each.

    Returns:
        The crops, and the same seen from closer in a mirror: each uint8 (12, size, size, 3), RGB.
    """
    crops, views = [], []
    for photograph in load_photographs().values():
        for top in _TOPS:
            for left in _LEFTS:
                crop = photograph[top : top + _SIDE, left : left + _SIDE]
                crops.append(resize(crop, size))
                view = crop[_CLOSER:-_CLOSER, _CLOSER:-_CLOSER][:, ::-1]
                views.append(resize(np.ascontiguousarray(view), size))
    return np.stack(crops), np.stack(views)
