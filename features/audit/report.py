"""What `python -m features audit` does: audit, print, and write duplicates.csv, groups.csv and audit.json."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from features.common.errors import InputError
from features.common.files import replacing
from features.common.text import first_few, make_console
from features.dataset.dataset import DatasetOptions, read_dataset
from features.dataset.groups import write_groups_file
from features.store.cache import FeatureCache

if TYPE_CHECKING:
    import pandas as pd

    from features.audit.audit import Audit

#: Importing these names loads neither pandas nor SciPy: a run needs them before its first check.
DUPLICATES, GROUPS, RECORD = "duplicates.csv", "groups.csv", "audit.json"
#: The scope of the pairs of two training images, which alone have folds.
WITHIN_TRAIN = "within train"
_PAIRS_SHOWN = 10
#: A proposed group of more than this share of the images has probably grown pair by pair, from patient to patient.
_LARGE_GROUP = 0.2
#: Width of the bins of distances in audit.json.
_BIN = 0.02


def audit_cache(cache: Path, data: Path, run: Path | None, out: Path | None, options: DatasetOptions) -> None:
    """Audit a data set by its cache.

    Args:
        cache: the cache's folder.
        data: the data set's folder; its images are not opened.
        run: folder of a finished run, whose folds are audited too, and whose groups are taken where the data set names
            none; None for none.
        out: folder to write to; None takes `run`, or else `audit` in the cache.
        options: of the CSV files.

    Raises:
        InputError: bad input.
    """
    from features.audit.audit import add_groups, find_leaks, gather, read_folds

    feature_cache = FeatureCache(cache)
    folds = {} if run is None else read_folds(run)
    dataset = read_dataset(data, options)
    if run is not None:
        dataset = add_groups(dataset, run)
    images, features, left_out = gather(dataset, feature_cache, folds)
    train = images.rows("train")
    without_fold = 0 if run is None else int((images.folds[train] < 0).sum())
    if without_fold and without_fold == len(train):
        raise InputError(
            f"{run} held none of the {len(train)} training images of {data} out, so it has no folds of theirs. Name a "
            "run of this data set with --run, or none."
        )
    with make_console(stderr=True).status(f"comparing {len(images.image_ids):,} images"):
        found = find_leaks(images, features)
    folder = out or run or cache / "audit"
    record = {"data": str(data), "cache": str(cache), "run": None if run is None else str(run)}
    write_audit(found, folder, record | {"splits_without_features": list(left_out)})
    for name in left_out:
        print(f"{name}: {cache} holds no features of it, so it is left out")
    if without_fold:
        print(f"train: {run} did not hold {without_fold} of {len(train)} images out, so their folds are not known")
    print_audit(found, folder)


def summarise(audit: "Audit") -> dict[str, Any]:
    """Sum an audit up as plain values, fit for JSON.

    Returns:
        `images`, `blank` and `without_features` by split; `backbones`; `threshold` (None without a search for near
        duplicates); `pairs`: by scope the number of `exact` and `near` ones, of those `across_folds` (None if folds are
        not known) and with `labels_differ`, and `nearest_beyond`, the least distance that did not count; `distances`:
        by scope how many mutual nearest pairs lie in each bin, from 0 on; `groups`.
    """
    images, pairs = audit.images, audit.pairs
    scopes = list(dict.fromkeys([*audit.distances, *pairs["scope"]]))
    folds_known = bool((images.folds >= 0).any())
    of_scopes = {}
    for scope in scopes:
        own = pairs[pairs["scope"] == scope]
        beyond = [float(d) for d in audit.distances.get(scope, ()) if audit.threshold and d >= audit.threshold.distance]
        of_scopes[scope] = {
            "exact": int((own["kind"] == "exact").sum()),
            "near": int((own["kind"] == "near").sum()),
            "across_folds": int((own["across_folds"] == True).sum()) if folds_known else None,  # noqa: E712 - or None
            "labels_differ": int(own["labels_differ"].fillna("").ne("").sum()),
            "nearest_beyond": min(beyond, default=None),
        }
    given = {name for name in images.groups.tolist() if name}
    edges = np.arange(0, 2 + _BIN, _BIN)
    return {
        "images": {name: len(images.rows(name)) for name in images.split_names},
        "blank": {name: int(images.blank[images.rows(name)].sum()) for name in images.split_names},
        "without_features": {name: len(rejected) for name, rejected in images.without_features.items()},
        "backbones": list(audit.backbones),
        "threshold": None
        if audit.threshold is None
        else {
            "distance": audit.threshold.distance,
            "exponent": audit.threshold.exponent if np.isfinite(audit.threshold.exponent) else None,
            "expected_by_chance": audit.threshold.expected,
            "of": "cosine distance of whitened features, mean over backbones",
        },
        "pairs": of_scopes,
        "distances": {
            "bin": _BIN,
            "counts": {scope: np.histogram(own, edges)[0].tolist() for scope, own in audit.distances.items()},
        },
        "groups": {
            "given": len(given),
            "on_several_sides": list(audit.both_sides),
            "proposed": len(set(audit.groups.values())),
            "largest": audit.largest_group,
        },
    }


def write_audit(audit: "Audit", folder: Path, record: dict[str, Any]) -> None:
    """Write duplicates.csv, groups.csv and audit.json; earlier ones are replaced.

    Args:
        audit: what was found.
        folder: made where it is missing.
        record: what the caller adds to audit.json.

    Raises:
        InputError: the folder cannot be written.
    """
    import pandas as pd

    images, pairs = audit.images, audit.pairs
    table = pd.DataFrame({"kind": pairs["kind"], "scope": pairs["scope"]})
    for side in ("first", "second"):
        rows = pairs[side].astype(int).tolist()
        table[f"{side}_split"] = [images.splits[row] for row in rows]
        table[f"{side}_ID"] = [images.image_ids[row] for row in rows]
    table["distance"] = pairs["distance"].astype(float).round(4)
    for column in ("same_group", "across_folds"):
        table[column] = [None if value is None else int(value) for value in pairs[column]]
        table[column] = table[column].astype("Int64")
    table["labels_differ"] = pairs["labels_differ"]
    with replacing(folder / DUPLICATES) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")
    write_groups_file(folder / GROUPS, audit.groups)
    with replacing(folder / RECORD) as temporary:
        text = json.dumps({**record, **summarise(audit)}, indent=2, ensure_ascii=False, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def read_audit(folder: Path) -> dict[str, Any] | None:
    """Read back what `write_audit` wrote: what `summarise` gives, and the caller's record; None where there is none.

    Raises:
        InputError: the file is damaged.
    """
    path = folder / RECORD
    if not path.is_file():
        return None
    try:
        audit = json.loads(path.read_text(encoding="utf-8"))
        known = audit if isinstance(audit, dict) else {}
        missing = [name for name in ("backbones", "threshold", "pairs", "groups") if name not in known]
        if missing:
            raise ValueError(f"{missing[0]} is missing")
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read ({error}). Make it again: python -m features audit CACHE --data DATA --run {folder}"
        ) from None
    return known


def print_audit(audit: "Audit", folder: Path) -> None:
    """Print the numbers, the nearest pairs, and what to do about them."""
    console = make_console()
    summary = summarise(audit)
    counts = ", ".join(f"{name} {count:,}" for name, count in summary["images"].items())
    console.print(f"audited: {len(audit.images.image_ids):,} images ({counts}), by {', '.join(audit.backbones)}")
    for name, count in summary["without_features"].items():
        if count:
            console.print(f"{name}: {count} images have no features (rejected by stage 1) and are left out")
    if blank := sum(summary["blank"].values()):
        console.print(f"{blank} images are blank or nearly so: left out of the search for near duplicates")
    _print_threshold(console, audit)
    console.print(_scope_table(summary))
    if len(audit.pairs):
        shown = audit.pairs[~(audit.pairs["same_group"] == True)]  # noqa: E712 - or None
        _print_pairs(console, audit, shown)
    _print_groups(console, audit, summary)
    console.print(f"written to {folder}: {DUPLICATES}, {GROUPS}, {RECORD}")


def _print_threshold(console: Console, audit: "Audit") -> None:
    """Say what counts as near, and why."""
    if audit.threshold is None:
        console.print("near duplicates: not searched, there are too few images to tell them from chance")
        return
    console.print(
        f"near: an image and its nearest one, if nearer than {audit.threshold.distance:.3g} (cosine distance of "
        f"whitened features). By the spread of all distances, {audit.threshold.expected:g} such pairs are expected by "
        "chance; this is an estimate, so look at the images"
    )


def _scope_table(summary: dict[str, Any]) -> Table:
    """Count the pairs of each scope."""
    table = Table(box=None, header_style="bold")
    table.add_column("pairs")
    for heading in ("exact", "near", "across folds", "labels differ", "nearest beyond"):
        table.add_column(heading, justify="right")
    for scope, own in summary["pairs"].items():
        folds, beyond = own["across_folds"], own["nearest_beyond"]
        table.add_row(
            scope,
            str(own["exact"]),
            str(own["near"]),
            "-" if folds is None or scope != WITHIN_TRAIN else str(folds),
            str(own["labels_differ"]),
            "-" if beyond is None else f"{beyond:.3f}",
        )
    return table


def _print_pairs(console: Console, audit: "Audit", shown: "pd.DataFrame") -> None:
    """Show the first pairs."""
    if not len(shown):
        console.print(f"all pairs are within a group ({DUPLICATES}): folds keep those of one split together")
        return
    several = bool((shown["same_group"] == False).any())  # noqa: E712 - or None
    what = "the nearest pairs" + (", none of them within a group" if several else "")
    table = Table(box=None, header_style="bold")
    for heading in ("kind", "scope", "first", "second"):
        table.add_column(heading, overflow="fold")
    table.add_column("distance", justify="right")
    table.add_column("labels differ", overflow="fold")
    images = audit.images
    for pair in shown.head(_PAIRS_SHOWN).to_dict("records"):
        ids = (Text(images.image_ids[pair[side]]) for side in ("first", "second"))
        labels = "not labelled" if pair["labels_differ"] is None else pair["labels_differ"] or "-"
        table.add_row(pair["kind"], pair["scope"], *ids, f"{pair['distance']:.3f}", Text(labels))
    console.print(f"{what} ({min(_PAIRS_SHOWN, len(shown))} of {len(shown)}, all in {DUPLICATES}):")
    console.print(table)


def _print_groups(console: Console, audit: "Audit", summary: dict[str, Any]) -> None:
    """Say which groups are on several sides, and what the proposed ones are."""
    groups, images = summary["groups"], audit.images
    proposed = f"{GROUPS}: {groups['proposed']:,} groups"
    if groups["given"]:
        sides = f"{len(audit.both_sides)} ({first_few(audit.both_sides)})" if audit.both_sides else "none"
        console.print(f"groups: {groups['given']:,} given; with images in several splits: {sides}")
        if audit.both_sides:
            console.print("scores on test are too good, as models learn from these groups: keep each in one split")
        ungrouped = int((images.groups == "").sum())
        without = f" ({ungrouped:,} images had none)" if ungrouped else ""
        console.print(f"{proposed}: the given ones{without}, joined if duplicates or images with the same id link them")
    elif audit.threshold is None:
        console.print("groups: none given (--group-column, --groups)")
        console.print(
            f"{proposed}, in which only exact duplicates and images with the same id are joined: so few images do not "
            "show which belong together. Give groups, such as patients: these groups keep none together"
        )
    else:
        console.print(
            "groups: none given (--group-column, --groups), so similar images of one patient are near duplicates, too"
        )
        console.print(
            f"{proposed} proposed for {len(images.image_ids):,} images, by a laxer threshold; the largest has "
            f"{groups['largest']:,} images. This is a stopgap: most images of a patient differ more, and still leak. "
            f"Give groups if you can; otherwise use classify run --groups {GROUPS}"
        )
        if groups["largest"] > max(_LARGE_GROUP * len(images.image_ids), 2):
            console.print(
                f"the largest holds {groups['largest'] / len(images.image_ids):.0%} of the images: it may have grown "
                "pair by pair over several patients"
            )
