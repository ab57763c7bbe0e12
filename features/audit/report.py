"""What `python -m features audit` does: audit, print, and write duplicates.csv, groups.csv and audit.json."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.table import Table

from features.common.cells import protect_table
from features.common.commands import join_words
from features.common.errors import InputError
from features.common.files import read_record, replacing
from features.common.text import count_things, first_few, make_console
from features.dataset.dataset import read_dataset
from features.dataset.groups import write_groups_file
from features.options import AuditOptions
from features.store.cache import FeatureCache
from features.store.run_labels import find_run_labels, read_run_labels
from features.store.scan_groups import with_scan_groups

if TYPE_CHECKING:
    from features.audit.audit import Audit

# Importing these names loads neither pandas nor SciPy: a run needs them before its first check.
DUPLICATES, GROUPS, RECORD = "duplicates.csv", "groups.csv", "audit.json"
#: The kinds of pairs.
EXACT, NEAR = "exact", "near"
#: The scope of the pairs of two training images, which alone have folds.
WITHIN_TRAIN = "within train"
_PAIRS_SHOWN = 10
#: A proposed group of more than this share of the images has probably grown pair by pair, from patient to patient.
_LARGE_GROUP = 0.2
#: Width of the bins of distances in audit.json.
_BIN = 0.02


def audit_cache(options: AuditOptions) -> None:
    """Audit a data set by its cache; the groups of a run are taken where the data set names none.

    Raises:
        InputError: bad input.
    """
    from features.audit.audit import find_leaks, gather

    cache, data, run = options.cache, options.data, options.run
    feature_cache = FeatureCache(cache, options.data)
    known = {} if run is None else read_run_labels(find_run_labels(run))
    dataset, groups = with_scan_groups(read_dataset(data, options), cache)
    images, features, left_out, note = gather(dataset, feature_cache, known)
    train = images.rows("train")
    without_fold = 0 if run is None else int((images.folds[train] < 0).sum())
    if without_fold and without_fold == len(train):
        raise InputError(
            f"{run} held none of the {len(train)} training images of {data} out, so it has no folds of theirs. Name a "
            "run of this data set with --run, or none."
        )
    folder = options.out or run or cache / "audit"
    if options.groups is not None and options.groups.resolve() == (folder / GROUPS).resolve():
        raise InputError(f"--groups {options.groups} would be replaced by the groups proposed. Name another --out.")
    with make_console(stderr=True).status(f"comparing {len(images.image_ids):,} images"):
        found = find_leaks(images, features)
    summary = summarise(found)
    given = {"data": str(data), "cache": str(cache), "run": None if run is None else str(run)}
    about = {**given, "splits_without_features": list(left_out), **summary}
    _write_audit(found, folder, about, options.excel_safe)
    for line in filter(None, (groups, note)):
        print(line)
    for name in left_out:
        print(f"{name}: {cache} holds no features of it, so it is left out")
    if without_fold:
        print(f"train: {run} did not hold {without_fold} of {len(train)} images out, so their folds are not known")
    _print_audit(found, summary, folder)
    print(f"written to {folder}: {DUPLICATES}, {GROUPS}, {RECORD}")


def summarise(audit: "Audit") -> dict[str, Any]:
    """Sum an audit up as plain values, fit for JSON.

    Returns:
        `images`, `blank` and `without_features` by split; `backbones`; `threshold` (None without a search for near
        duplicates); `pairs`: by scope the number of `exact` and `near` ones, of those `across_folds` (None if folds are
        not known) and with `labels_differ`, and `nearest_beyond`, the least distance that did not count; `distances`:
        by scope how many mutual nearest pairs lie in each bin, from 0 on; `groups`.
    """
    images, pairs, threshold = audit.images, audit.pairs, audit.threshold
    folds_known = bool((images.folds >= 0).any())
    of_scopes = {}
    for scope in dict.fromkeys([*audit.distances, *pairs["scope"]]):
        own = pairs[pairs["scope"] == scope]
        beyond = [float(d) for d in audit.distances.get(scope, ()) if threshold and d >= threshold.distance]
        of_scopes[scope] = {
            EXACT: int((own["kind"] == EXACT).sum()),
            NEAR: int((own["kind"] == NEAR).sum()),
            "across_folds": int(own["across_folds"].sum()) if folds_known else None,
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
        if threshold is None
        else {
            "distance": threshold.distance,
            "exponent": threshold.exponent if np.isfinite(threshold.exponent) else None,
            "expected_by_chance": threshold.expected,
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


def _write_audit(audit: "Audit", folder: Path, record: dict[str, Any], excel_safe: bool) -> None:
    """Write duplicates.csv, groups.csv and, of the record, audit.json; earlier ones are replaced."""
    pairs = audit.pairs.round({"distance": 4}).astype({"same_group": "Int64", "across_folds": "Int64"})
    with replacing(folder / DUPLICATES) as temporary:
        pairs.to_csv(temporary, index=False, lineterminator="\n")
        protect_table(temporary, excel_safe)
    write_groups_file(folder / GROUPS, audit.groups, excel_safe)
    with replacing(folder / RECORD) as temporary:
        text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def read_audit(folder: Path, remedy: str) -> dict[str, Any] | None:
    """Read the audit.json of a folder, with what `summarise` gives; None where there is none.

    Raises:
        InputError: the file is damaged.
    """
    path = folder / RECORD
    if not path.is_file():
        return None
    return read_record(path, remedy, "backbones", "threshold", "pairs", "groups")


def _print_audit(audit: "Audit", summary: dict[str, Any], folder: Path) -> None:
    """Print the numbers, the nearest pairs, and what to do about them."""
    console = make_console()
    counts = ", ".join(f"{name} {count:,}" for name, count in summary["images"].items())
    console.print(f"audited: {len(audit.images.image_ids):,} images ({counts}), by {', '.join(audit.backbones)}")
    for name, count in summary["without_features"].items():
        if count:
            console.print(f"{name}: {count_things(count, 'image')} without features (rejected by stage 1), left out")
    if blank := sum(summary["blank"].values()):
        console.print(f"{blank} images are blank or nearly so: left out of the search for near duplicates")
    if audit.threshold is None:
        console.print("near duplicates: not searched, there are too few images to tell them from chance")
    else:
        console.print(
            f"near: an image and its nearest one, if nearer than {audit.threshold.distance:.3g} (cosine distance of "
            f"whitened features). By the spread of all distances, {audit.threshold.expected:g} such pairs are expected "
            "by chance; this is an estimate, so look at the images"
        )
    if summary["pairs"]:
        console.print(_scope_table(summary))
    else:
        console.print("exact duplicates: none")
    if len(audit.pairs):
        _print_pairs(console, audit)
    _print_groups(console, audit, summary["groups"], folder)


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
            str(own[EXACT]),
            str(own[NEAR]),
            "-" if folds is None or scope != WITHIN_TRAIN else str(folds),
            str(own["labels_differ"]),
            "-" if beyond is None else f"{beyond:.3f}",
        )
    return table


def _print_pairs(console: Console, audit: "Audit") -> None:
    """Show the first pairs that are not within a group."""
    shown = audit.pairs[~audit.pairs["same_group"].fillna(False)]
    if not len(shown):
        console.print(f"all pairs are within a group ({DUPLICATES}): folds keep those of one split together")
        return
    what = "the nearest pairs" + (", none of them within a group" if (~shown["same_group"]).any() else "")
    table = Table(box=None, header_style="bold")
    for heading in ("kind", "scope", "first", "second"):
        table.add_column(heading, overflow="fold")
    table.add_column("distance", justify="right")
    table.add_column("labels differ", overflow="fold")
    for pair in shown.head(_PAIRS_SHOWN).to_dict("records"):
        ids = (pair[name] for name in ("first_ID", "second_ID"))
        labels = (pair["labels_differ"] or "-") if isinstance(pair["labels_differ"], str) else "not labelled"
        table.add_row(pair["kind"], pair["scope"], *ids, f"{pair['distance']:.3f}", labels)
    console.print(f"{what} ({min(_PAIRS_SHOWN, len(shown))} of {len(shown)}, all in {DUPLICATES}):")
    console.print(table)


def _print_groups(console: Console, audit: "Audit", groups: dict[str, Any], folder: Path) -> None:
    """Say which groups are on several sides, and what the proposed ones are."""
    images = audit.images
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
        console.print("groups: none given (--group-column, --group-from, --groups)")
        console.print(
            f"{proposed}, in which only exact duplicates and images with the same id are joined: so few images do not "
            "show which belong together. Give groups, such as patients: these groups keep none together"
        )
    else:
        console.print(
            "groups: none (--group-column, --group-from, --groups), so similar images of one patient are near "
            "duplicates"
        )
        console.print(
            f"{proposed} proposed for {len(images.image_ids):,} images, by a laxer threshold; the largest has "
            f"{groups['largest']:,} images. This is a stopgap: most images of a patient differ more, and still leak. "
            f"Give groups if you can; otherwise use classify run {join_words('--groups', folder / GROUPS)}"
        )
        if groups["largest"] > max(_LARGE_GROUP * len(images.image_ids), 2):
            console.print(
                f"the largest holds {groups['largest'] / len(images.image_ids):.0%} of the images: it may have grown "
                "pair by pair over several patients"
            )
