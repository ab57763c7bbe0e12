"""What `python -m features map` does: lay images out, and write the map as one page, map.html."""

import base64
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from features.common.arrays import UNKNOWN
from features.common.commands import option_words, write_command
from features.common.files import replacing
from features.common.text import count_things, json_for_html, make_console, render
from features.map.images import CachedImages, find_cached
from features.map.layout import LEAST_EMBEDDED, lay_out_linear, lay_out_neighbours, perplexity_of
from features.map.neighbours import find_neighbours, learn_points
from features.map.sample import draw_sample
from features.map.thumbnails import Thumbnails
from features.options import OF_IMAGES, MapOptions
from features.store.cache import FeatureCache
from features.store.source import read_source

MAP_PAGE = "map.html"
#: Nearest images that the page lists of each.
NEAREST = 12
#: Bytes of all pictures, as they stand in the page, at the most.
_BUDGET = 8_000_000
#: What of the options of an extraction says which images there are.
_OF_IMAGES = (*OF_IMAGES, "split")
#: Places along each axis.
_GRID = 10_000


def map_cache(options: MapOptions) -> None:
    """Draw the map; what is shown and how is said before the long work starts.

    Raises:
        InputError: bad input, or the page cannot be written.
    """
    cache, console = FeatureCache(options.cache, options.data), make_console()
    every, backbones = find_cached(cache, options)
    for line in every.understood:
        console.print(f"understood: {line}")
    images = every.take(draw_sample(every, options.most))
    counts = ", ".join(f"{name} {(images.splits == name).sum():,}" for name in dict.fromkeys(images.splits.tolist()))
    console.print(f"map of {count_things(len(images), 'image')} ({counts}) by {', '.join(backbones)}")
    if len(images) < len(every):
        console.print(
            f"sample: {len(images):,} of {len(every):,} images, drawn by a seed; rare labels and splits have more than "
            "their share, so that none vanishes (--most)"
        )
    then = f", then t-SNE of whitened features (perplexity {perplexity_of(len(images)):.3g}, seed 0)"
    few = f"; of fewer than {LEAST_EMBEDDED} images there is no t-SNE"
    console.print(f"layout: principal components{then if len(images) >= LEAST_EMBEDDED else few}")
    features = images.features(cache, backbones)
    linear, share = lay_out_linear([own[:] for own in features])
    points = learn_points(features).points(features)
    nearest, cosines = find_neighbours(points, NEAREST)
    with make_console(stderr=True).status(f"t-SNE of {len(images):,} images"):
        embedded = lay_out_neighbours(points, linear)
    pictures = _read_pictures(cache, images, backbones[0])
    path = (options.out or options.cache / "map") / MAP_PAGE
    source = read_source(cache.path(every.stored[0], backbones[0]))
    data = options.data or (source and source.data)
    read_as = {name: value for name, value in (source.options if source else {}).items() if name in _OF_IMAGES}
    draw = write_command("extract thumbnails", data or "DATA", *option_words({**read_as, "cache": options.cache}))
    about = {
        "title": (data or options.cache).resolve().name,
        "command": write_command("features map", options.cache, *_words(options)),
        "backbones": backbones,
        "every": len(every),
        "share": share,
        "final_model": every.final_model,
        "understood": every.understood,
        "pictures": len(pictures),
        "draw": draw,
    }
    layouts = {"t-SNE": embedded, "principal components": linear}
    if len(images) < LEAST_EMBEDDED:
        del layouts["t-SNE"]
    with replacing(path) as temporary:
        temporary.write_text(make_map(images, layouts, nearest, cosines, pictures, about), encoding="utf-8")
    console.print(
        f"principal components: the plane shows {share:.0%} of the variance; pictures: {len(pictures):,} of "
        f"{len(images):,} images"
        + ("" if len(pictures) == len(images) else f", of at most 8 MB. Those that are missing, then again: {draw}")
    )
    console.print(f"map: {path} ({path.stat().st_size / 1e6:.1f} MB)")


def make_map(
    images: CachedImages,
    layouts: dict[str, np.ndarray],
    nearest: np.ndarray,
    cosines: np.ndarray,
    pictures: dict[int, bytes],
    about: dict[str, Any],
) -> str:
    """Make the page, HTML that asks for nothing else.

    Args:
        images: n images.
        layouts: by name, float64 (n, 2); the first is shown first.
        nearest: int64 (n, K), rows of the nearest images of each.
        cosines: float32 (n, K), theirs.
        pictures: WebP by row, of the images that have one.
        about: `title`, `command`, `backbones`, `every` (the images of the cache), `share` (0-1, of the variance),
            `final_model`, `understood`, `pictures` (how many) and `draw` (the command that draws them).
    """
    splits, split_of = np.unique(images.splits.astype(str), return_inverse=True)
    groups, group_of = np.unique(images.groups.astype(str), return_inverse=True)
    embedded = {
        "ids": images.image_ids.tolist(),
        "splits": splits.tolist(),
        "split": split_of.tolist(),
        "groups": groups.tolist() if (images.groups != "").any() else [],
        "group": group_of.tolist(),
        "labels": list(images.label_names),
        "values": np.where(images.labels == UNKNOWN, -1, images.labels.astype(int)).T.tolist(),
        "model": about["final_model"],
        "errors": [_as_hundredths(column) for column in images.errors.T] if about["final_model"] else [],
        "layouts": {name: _on_grid(places) for name, places in layouts.items()},
        "nearest": nearest.tolist(),
        "cosines": np.rint(cosines * 1000).astype(int).tolist(),
        "pictures": {str(row): base64.b64encode(content).decode("ascii") for row, content in pictures.items()},
    }
    folder = Path(__file__).parent
    values = {
        **about,
        "images": len(images),
        "layouts": list(layouts),
        "style": Markup((folder / "map.css").read_text(encoding="utf-8")),
        "embedded": json_for_html(embedded),
    }
    return render(folder / MAP_PAGE, values, script=(folder / "map.js").read_text(encoding="utf-8"))


def _words(options: MapOptions) -> list[str]:
    """The options that were given, as words of the command."""
    standard = MapOptions(cache=options.cache)
    given = {name: value for name, value in vars(options).items() if value != getattr(standard, name)}
    return option_words(given)


def _as_hundredths(errors: np.ndarray) -> list[int]:
    """Errors, float32 (n,), 0 to 1, as whole hundredths; -1 where there is none."""
    return np.where(np.isnan(errors), -1, np.rint(np.nan_to_num(errors) * 100)).astype(int).tolist()


def _on_grid(places: np.ndarray) -> list[list[int]]:
    """Places, float64 (n, 2), as whole numbers from 0 to `_GRID`, with the same scale along both axes: x, then y."""
    low, high = places.min(axis=0), places.max(axis=0)
    scale = _GRID / max(float((high - low).max()), 1e-12)
    return np.rint((places - (low + high) / 2) * scale + _GRID / 2).astype(int).T.tolist()


def _read_pictures(cache: FeatureCache, images: CachedImages, backbone: str) -> dict[int, bytes]:
    """Read the small pictures of images, by row, in the order of the rows until the page is full."""
    found: dict[int, bytes] = {}
    budget = _BUDGET
    for folder in dict.fromkeys(images.stored.tolist()):
        index = cache.open(folder, backbone).index
        digests: dict[int, bytes] = {
            int(row): index[images.image_ids[row]] for row in np.flatnonzero(images.stored == folder)
        }
        pictures = Thumbnails(cache.root, folder).read(set(digests.values()))
        for row, own in digests.items():
            if own in pictures and (budget := budget - len(pictures[own]) * 4 // 3) >= 0:
                found[row] = pictures[own]
    return found
