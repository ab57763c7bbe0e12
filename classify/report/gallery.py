"""The gallery of a run: the images worth looking at, with small copies of the pictures that RUN/cam holds of them."""

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from PIL import Image

from classify.options import command_line
from classify.report.run_files import RunFiles
from classify.scores.gallery import LABEL_ERROR, NEAR_THRESHOLD, OUTCOMES, outcome_of
from classify.scores.label_errors import NEAR_ROWS
from classify.scores.thresholds import to_binary
from features.common.errors import InputError
from features.store.gradients import CAM, draw_command, heat_path, read_cam, thumbnail_path

#: Longer side of a picture in the page, in pixels: it is shown at about 160, on fine screens at double that.
SIDE = 208
#: Of WebP, 0-100. Beside PNG of 256 pixels it takes a tenth of the bytes.
QUALITY = 82
#: Bytes of all pictures, as they stand in the page, at the most: with the rest it stays below 8 MB.
BUDGET = 6_000_000

_SHOWN = (*OUTCOMES, LABEL_ERROR)
OUTCOME_NAMES = {key: key.replace("_", " ") for key in _SHOWN} | {
    NEAR_THRESHOLD: "near the threshold",
    LABEL_ERROR: "likely label error",
}
#: Rows of label_errors.csv in the page.
_ERRORS = 30


class Pictures(NamedTuple):
    """The pictures of the gallery, as data URIs.

    Attributes:
        thumbnails: by the number of the image.
        heat: by the number of the label (from 0), a slash, and the number of the image.
        left_out: how many images have a picture that found no room in the page.
    """

    thumbnails: dict[str, str]
    heat: dict[str, str]
    left_out: int


def describe_gallery(run: RunFiles) -> dict[str, Any]:
    """Gather the section.

    Raises:
        InputError: `RUN/cam` is damaged.
    """
    heat_record, files = read_cam(run.folder)
    if heat_record and heat_record["run"] != run.record["seal"]:
        raise InputError(f"{run.folder / CAM} holds heat maps of another run. Run: {draw_command(run.folder)}")
    cards = _list_cards(run, files)
    wanted = sorted((card for card in cards if card["file"]), key=lambda card: card["rank"])
    pictures = embed_pictures(run.folder / CAM, [(card["file"], card["number"]) for card in wanted])
    for card in cards:
        heat = f"{card['number']}/{card['file']}"
        card["thumbnail"] = card["file"] in pictures.thumbnails
        card["heat"] = heat if heat in pictures.heat else ""
    return {
        "cards": cards,
        "pictures": pictures,
        "outcomes": [(key, OUTCOME_NAMES[key]) for key in _SHOWN if any(c["outcome"] == key for c in cards)],
        "splits": [split for split in run.splits.values() if any(c["split"] == split.name for c in cards)],
        "with_pictures": sum(card["thumbnail"] for card in cards),
        "has_cam": files is not None,
        "commands": [command_line(name, run.folder, run.record) for name in ("extract heat", "classify report")],
        "heat": heat_record,
    }


def describe_label_errors(run: RunFiles, cards: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Gather the section of labels that are probably wrong; the cards are the gallery's."""
    table = run.label_errors
    pictured = {(card["id"], card["label"]): card for card in cards if card["outcome"] == LABEL_ERROR}
    rows = table.head(_ERRORS).to_dict("records")
    for row in rows:
        row["card"] = pictured.get((row["ID"], row["label"]))
        for name in ("duplicate_of", "group"):
            row[name] = "" if pd.isna(row[name]) else row[name]
    reasons = {} if table.empty else table["why"].value_counts().to_dict()
    rows_searched = len(run.splits["train"].image_ids)
    return {"rows": rows, "count": len(table), "reasons": reasons, "near_searched": rows_searched <= NEAR_ROWS}


def _list_cards(run: RunFiles, files: dict[tuple[str, str], str] | None) -> list[dict[str, Any]]:
    """Say of each image of the gallery what it is and what the final model made of it."""
    rows = {name: {i: row for row, i in enumerate(split.image_ids)} for name, split in run.splits.items()}
    numbers = {label: index for index, label in enumerate(run.label_names)}
    decided = {name: to_binary(split.probabilities, run.cuts) for name, split in run.splits.items()}
    cards = []
    for choice in run.gallery.itertuples():
        split, index = run.splits[choice.split], numbers[choice.label]
        row = rows[choice.split][choice.ID]
        probability = float(split.probabilities[row, index])
        positive = bool(split.labels[row, index] == 1)
        cards.append(
            {
                "split": choice.split,
                "id": choice.ID,
                "label": choice.label,
                "number": index,
                "outcome": choice.outcome,
                "outcome_name": OUTCOME_NAMES[choice.outcome],
                "decision": OUTCOME_NAMES[outcome_of(positive, bool(decided[choice.split][row, index]))],
                "said": choice.outcome in ("example", NEAR_THRESHOLD, LABEL_ERROR),
                "rank": choice.rank,
                "probability": probability,
                "threshold": float(run.cuts[index]),
                "truth": [name for name, has in zip(run.label_names, split.labels[row] == 1, strict=True) if has],
                "group": "" if split.groups is None else split.groups[row],
                "file": "" if files is None else files.get((choice.split, choice.ID), ""),
            }
        )
    return cards


def embed_pictures(cam: Path, wanted: Sequence[tuple[str, int]], budget: int = BUDGET) -> Pictures:
    """Read thumbnails and heat maps, until the page is full.

    Args:
        cam: the run's folder of pictures: `thumbnails/{image}.jpg`, `heat/{label}/{image}.png`.
        wanted: number of the image and number of the label (from 0), the most wanted first.
        budget: bytes that the data URIs may take together.

    Raises:
        InputError: a file is not a picture.
    """
    thumbnails: dict[str, str] = {}
    heat: dict[str, str] = {}
    left_out: set[str] = set()
    for image, label in wanted:
        for of_kind, key, path in (
            (thumbnails, image, thumbnail_path(cam, image)),
            (heat, f"{label}/{image}", heat_path(cam, label, image)),
        ):
            if key in of_kind or image in left_out or not path.is_file():
                continue
            try:
                uri = _data_uri(path)
            except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:  # all of them Pillow's
                raise InputError(f"{path} cannot be read ({error}). Run: {draw_command(cam.parent)}") from None
            if len(uri) > budget:
                left_out.add(image)
                continue
            budget -= len(uri)
            of_kind[key] = uri
    return Pictures(thumbnails, heat, len(left_out))


def _data_uri(path: Path) -> str:
    """Give a picture as a data URI of a small WebP."""
    with Image.open(path) as picture:
        small = picture.convert("RGBA" if picture.has_transparency_data else "RGB")
    small.thumbnail((SIDE, SIDE))
    stored = io.BytesIO()
    small.save(stored, "WEBP", quality=QUALITY, method=1)  # thrice as fast as the default, some bytes more
    return "data:image/webp;base64," + base64.b64encode(stored.getvalue()).decode("ascii")
