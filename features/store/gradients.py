"""Keep what heat maps are drawn by, RUN/gradients.h5, and the lists of what is drawn, in RUN/cam.

In gradients.h5, `about` is JSON: the model, its labels, members and backbones, and the pairs of image and label.
`gradients/{backbone}` is float32 (P, D), one row a pair: of the logit with respect to the pooled features. A feature is
the mean of its map over the positions, so the mean of map times gradient, summed over the backbones, and the pair's
rest are the logit.
"""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from features.common.cells import protect_tables, read_cell
from features.common.commands import write_command
from features.common.errors import InputError, cause_of
from features.common.files import replacing
from features.common.hdf5 import refuse_inflated
from features.store.cache_file import HDF5_ERRORS
from features.store.recipe import Recipe
from features.store.run_labels import MARK

#: The file's name in the folder of a run or of predictions.
GRADIENTS = "gradients.h5"
#: What is drawn by it: the folder of pictures, and what says there how they were made.
CAM, CAM_RECORD = "cam", "cam.json"
#: Where the next CAM is made, and the lock that its maker holds.
CAM_STAGING, CAM_LOCK = f".{CAM}.partial", f".{CAM}.lock"
#: Columns of the tables of CAM. A box is in pixels of the image: its first column and row, and those after its last.
_CAM_COLUMNS = {
    "images.csv": ("split", "ID", "file"),
    "pairs.csv": ("split", "ID", "label", "outcome", "rank", "score", "positive", "file"),
    "boxes.csv": ("split", "ID", "label", "x0", "y0", "x1", "y1", "score", "heat"),
}
#: Version of the file's layout.
GRADIENTS_SCHEMA = 2
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
        run: the seal of the run whose model it is.
        chosen_of: how many images those of the pairs were chosen from.
        members: share of each baseline and head in the model's logit, label by label.
        left_out: by name, why a member has no part.
        covered: share of the model that the members make up, 0-1.
        no_heat: why there are no gradients; "" where there are.
        instead: models of the run that have gradients, where this one has none.
        recipes: how the features that the model reads of each backbone were extracted; empty without gradients.
        vectors: by backbone float32 (P, D); empty without gradients.
        excel_safe: whether the tables of what is drawn are to be safe in spreadsheets.
    """

    run: str
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
    excel_safe: bool = False

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
        content = io.BytesIO(path.read_bytes())  # HDF5 then meets neither locks nor the disk
    except OSError as error:
        raise InputError(f"{path} cannot be read: {cause_of(error)}") from None
    try:
        refuse_inflated(content)
        with h5py.File(content) as file:
            about = json.loads(file["about"][:].tobytes())
            vectors = {name: file["gradients"][name][:] for name in about["recipes"]}
    except HDF5_ERRORS as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
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
    return f"Write it: {write_command('classify gradients', folder)}; of predictions: classify predict --heat 6."


def thumbnail_path(cam: Path, file: str) -> Path:
    """The thumbnail of an image in a folder of heat maps; `file` is its number in images.csv."""
    return cam / "thumbnails" / f"{file}.jpg"


def heat_path(cam: Path, label: int, file: str) -> Path:
    """The heat map of an image for a label."""
    return cam / "heat" / str(label) / f"{file}.png"


def write_cam(
    cam: Path,
    found: Gradients,
    tables: Sequence[Iterable[Sequence[object]]],
    images_left_out: Mapping[str, str],
    largest_error: float,
) -> None:
    """Write the tables of a folder of heat maps, the same bytes on every system, and cam.json.

    Args:
        cam: the folder.
        found: what the heat maps were drawn by.
        tables: the rows of images.csv, pairs.csv and boxes.csv.
        images_left_out: by image, why it has no picture.
        largest_error: by how much the maps miss the logits at the most.
    """
    for (name, columns), rows in zip(_CAM_COLUMNS.items(), tables, strict=True):
        with (cam / name).open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(columns)
            writer.writerows(rows)
    protect_tables(cam, found.excel_safe)
    record = {
        "run": found.run,
        "model": found.model,
        "labels": found.label_names,
        "members": {
            member: dict(zip(found.label_names, shares, strict=True)) for member, shares in found.members.items()
        },
        "left_out": found.left_out,
        "covered": round(found.covered, 6),
        "no_heat": found.no_heat,
        "images_left_out": images_left_out,
        "largest_error": float(f"{largest_error:.2g}"),
        "fingerprints": {name: recipe.fingerprint for name, recipe in found.recipes.items()},
    }
    (cam / CAM_RECORD).write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_cam(run: Path) -> tuple[dict[str, Any], dict[tuple[str, str], str] | None]:
    """Read how the heat maps of a run were made, and which number is which image's.

    Returns:
        cam.json, empty where it is missing; and the number by split and id, None where there is no images.csv.

    Raises:
        InputError: a file is damaged.
    """
    record, files = {}, None
    path = run / CAM / CAM_RECORD
    try:
        if path.is_file():
            record = json.loads(path.read_text(encoding="utf-8"))
            kinds = {"run": str, "model": str, "left_out": dict, "no_heat": str}
            if not (isinstance(record, dict) and all(isinstance(record.get(name), kinds[name]) for name in kinds)):
                raise ValueError("run, model, left_out or no_heat is missing, or of another type")
        path = run / CAM / "images.csv"
        if path.is_file():
            with path.open(encoding="utf-8", newline="") as file:
                _, *rows = csv.reader(file)
            # As numbers: a name that leads elsewhere must not bring another file into the report.
            files = {(split, read_cell(image_id)): f"{int(number):05d}" for split, image_id, number in rows}
    except OSError as error:
        raise InputError(f"{path} cannot be read: {cause_of(error)}") from None
    except (ValueError, RecursionError, csv.Error) as error:
        raise InputError(f"{path} cannot be read ({error}). Run: {draw_command(run)}") from None
    return record, files


def draw_command(run: Path) -> str:
    """The command that draws the heat maps of a run, or of predictions, whose images only their maker knows."""
    data: Path | str = "DATA"
    with suppress(OSError, ValueError, KeyError, TypeError):
        data = Path(json.loads((run / MARK).read_text(encoding="utf-8"))["data"])
    return write_command("extract heat", data, run)
