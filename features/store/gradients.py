"""Keep what turns feature maps into heat maps: the gradients of a model's logits, RUN/gradients.h5.

`about` is JSON: the model, its labels, members and backbones, and the pairs of image and label. `gradients/{backbone}`
is float32 (P, D), one row a pair: of the logit with respect to the pooled features. A feature is the mean of its map
over the positions, so the mean of map times gradient, summed over the backbones, and the pair's rest are the logit.
"""

import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import h5py
import numpy as np

from features.common.errors import InputError
from features.common.files import replacing
from features.store.recipe import Recipe

#: The file's name in the folder of a run or of predictions.
GRADIENTS = "gradients.h5"
#: What is drawn by it: the folder of pictures, the list of images there, and what says how they were made.
CAM, CAM_IMAGES, CAM_RECORD = "cam", "images.csv", "cam.json"
#: Version of the file's layout.
GRADIENTS_SCHEMA = 1
#: Bits of a float32's mantissa that `rounded` clears: 10 of 23 remain, as in float16, with the range of float32.
_CLEARED_BITS = 13


@dataclass(frozen=True)
class Pair:
    """An image and a label that a heat map is drawn for.

    Attributes:
        digest: BLAKE2b-128 of the file that its features are of, 32 hexadecimal digits; "" if the backbones'
            features are of different files.
        label: number of the label, from 0.
        reasons: why it is shown: outcome and rank in the gallery, or `("surest", rank)`; none where it was asked for.
        score: the model's probability, 0-1; of a training image out-of-fold.
        positive: whether the model says yes.
        logit: what the gradient is of.
        rest: what the mean of map times gradient leaves of the logit.
    """

    split: str
    image_id: str
    digest: str
    label: int
    reasons: tuple[tuple[str, int], ...]
    score: float
    positive: bool
    logit: float = 0.0
    rest: float = 0.0


@dataclass(frozen=True)
class Gradients:
    """What is known of P pairs.

    Attributes:
        chosen_of: how many images those of the pairs were chosen from.
        members: share of each baseline and head in the model's logit, label by label.
        left_out: by name, why a member has no part.
        covered: share of the model that the members make up, 0-1.
        no_heat: why there are no gradients; "" where there are.
        instead: models of the run that have gradients, where this one has none.
        recipes: how the features of each backbone were extracted; empty without gradients.
        vectors: by backbone float32 (P, D); empty without gradients.
    """

    model: str
    label_names: tuple[str, ...]
    chosen_of: int
    members: Mapping[str, tuple[float, ...]]
    left_out: Mapping[str, str]
    covered: float
    no_heat: str
    instead: tuple[str, ...]
    recipes: Mapping[str, Recipe]
    pairs: tuple[Pair, ...]
    vectors: Mapping[str, np.ndarray]

    @property
    def count(self) -> str:
        """How many pairs and images there are, of how many, in words."""
        images = len({(pair.split, pair.image_id) for pair in self.pairs})
        return (
            f"{len(self.pairs):,} of {self.chosen_of * len(self.label_names):,} pairs of image and label "
            f"({images:,} of {self.chosen_of:,} images)"
        )


def rounded(gradients: np.ndarray) -> np.ndarray:
    """Round float32 values to 11 significant bits, so that the file compresses to half its size."""
    half = np.uint32(1 << (_CLEARED_BITS - 1))
    bits = np.ascontiguousarray(gradients, np.float32).view(np.uint32) + half
    return (bits & ~np.uint32((1 << _CLEARED_BITS) - 1)).view(np.float32)


def write_gradients(folder: Path, found: Gradients) -> None:
    """Write gradients.h5 into a folder; an earlier one is replaced.

    Raises:
        InputError: the folder cannot be written to, or the disk is full.
    """
    about = {name: value for name, value in vars(found).items() if name not in ("recipes", "pairs", "vectors")}
    about |= {
        "schema_version": GRADIENTS_SCHEMA,
        "recipes": {name: asdict(recipe) for name, recipe in found.recipes.items()},
        "pairs": [asdict(pair) for pair in found.pairs],
    }
    text = np.frombuffer(json.dumps(about, ensure_ascii=False).encode(), np.uint8)
    # In memory first: HDF5 itself does not survive a disk that fills up.
    content = io.BytesIO()
    with h5py.File(content, "w", libver="v110") as file:  # a layout with checksums over all metadata
        _add(file, "about", text)
        for name, vectors in found.vectors.items():
            _add(file, f"gradients/{name}", vectors)
    with replacing(folder / GRADIENTS) as temporary:
        temporary.write_bytes(content.getbuffer())


def _add(file: h5py.File, name: str, values: np.ndarray) -> None:
    """Store an array, compressed and with checksums."""
    rows = min(len(values), 1 << 14) if values.ndim == 1 else min(len(values), 64)
    file.create_dataset(
        name, data=values, chunks=(rows, *values.shape[1:]), shuffle=True, compression="gzip", fletcher32=True
    )


def read_gradients(folder: Path) -> Gradients:
    """Read gradients.h5 of a folder.

    Raises:
        InputError: it is missing, damaged, or of another layout.
    """
    path = folder / GRADIENTS
    if not path.is_file():
        raise InputError(f"{path} is not there: it says what to draw heat maps of. {_remedy(folder)}")
    try:
        with h5py.File(path) as file:
            about = json.loads(file["about"][:].tobytes())
            vectors = {name: file["gradients"][name][:] for name in about["recipes"]}
    except (OSError, KeyError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{path} is damaged ({reason}). {_remedy(folder)}") from None
    if (version := about.pop("schema_version", None)) != GRADIENTS_SCHEMA:
        raise InputError(f"{path} has layout {version}, but this Headbank reads {GRADIENTS_SCHEMA}. {_remedy(folder)}")
    pairs = (pair | {"reasons": tuple(map(tuple, pair["reasons"]))} for pair in about.pop("pairs"))
    return Gradients(
        label_names=tuple(about.pop("label_names")),
        instead=tuple(about.pop("instead")),
        members={name: tuple(shares) for name, shares in about.pop("members").items()},
        recipes={name: Recipe.from_record(recipe) for name, recipe in about.pop("recipes").items()},
        pairs=tuple(Pair(**pair) for pair in pairs),
        vectors=vectors,
        **about,
    )


def _remedy(folder: Path) -> str:
    """Say what writes the file."""
    return f"Write it: python -m classify gradients {folder}; or, if these are predictions, classify predict --heat 6."
