"""What `python -m features similar` does: list the images that resemble one."""

import difflib

import numpy as np
from rich.table import Table

from features.common.errors import InputError
from features.common.text import first_few, make_console
from features.map.images import find_cached
from features.map.neighbours import find_nearest
from features.options import SimilarOptions
from features.store.cache import FeatureCache

#: Ids that resemble one that is unknown.
_GUESSES = 3


def list_similar(options: SimilarOptions) -> None:
    """Print the nearest images of one.

    Raises:
        InputError: bad input; or the id is unknown, or that of several images.
    """
    cache, console = FeatureCache(options.cache, options.data), make_console()
    images, backbones = find_cached(cache, options)
    (rows,) = np.nonzero(images.image_ids == options.image_id)
    if not len(rows):
        some = images.image_ids[:100_000].tolist()
        near = difflib.get_close_matches(options.image_id, some, _GUESSES, 0.5) or some[:_GUESSES]
        raise InputError(
            f"--id {options.image_id!r} is not one of the {len(images):,} images of {options.cache} "
            f"({', '.join(dict.fromkeys(images.stored.tolist()))}). Ids are such as {first_few(near)}."
        )
    if len(rows) > 1:
        folders = images.stored[rows].tolist()
        raise InputError(
            f"--id {options.image_id!r} is an image of {' and of '.join(folders)}. Name one of them with --split."
        )
    for line in images.understood:
        console.print(f"understood: {line}")
    (row,) = rows.tolist()
    nearest, cosines = find_nearest(images.features(cache, backbones), row, options.count)
    console.print(
        f"{options.image_id} ({images.describe(row)}): the nearest {len(nearest):,} of {len(images) - 1:,} other "
        f"images, by the cosine of whitened features of {', '.join(backbones)}"
    )
    table = Table(box=None, header_style="bold")
    table.add_column("image", overflow="fold")
    table.add_column("split", overflow="fold")
    table.add_column("cosine", justify="right")
    if (images.groups != "").any():
        table.add_column("group", overflow="fold")
        table.add_column("same group")
    if images.label_names:
        table.add_column("labels", overflow="fold")
    for place, cosine in zip(nearest.tolist(), cosines.tolist(), strict=True):
        cells = [images.image_ids[place], images.splits[place], f"{cosine:.3f}"]
        if (images.groups != "").any():
            group = images.groups[place]
            same = "yes" if group == images.groups[row] else "no"
            cells += [group or "-", same if group and images.groups[row] else "-"]
        if images.label_names:
            cells.append(images.say_labels(place))
        table.add_row(*cells)
    console.print(table)
