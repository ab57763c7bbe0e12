"""Print the description of a data set, and write it as one page, describe.html, that needs nothing else."""

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from features.common.errors import InputError
from features.common.files import replacing
from features.common.text import first_few, make_console, render
from features.dataset.dataset import DatasetOptions, read_with_faults
from features.dataset.table import Faults
from features.describe.description import Description, ImageSummary, describe_split
from features.store.cache import FeatureCache, default_cache
from features.store.images_table import FactsTable

PAGE = "describe.html"
_SHOWN = 8
#: Kinds, such as sizes, that a table of the page shows; lists of images are whole.
_KINDS_ON_PAGE = 200
#: Lists of no more entries than this are open from the start.
_OPEN_ENTRIES = 10


def describe_dataset(data: Path, cache: Path | None, out: Path | None, options: DatasetOptions) -> None:
    """Describe a data set.

    Args:
        data: the data set's folder; its images are not opened.
        cache: the cache's folder; None takes the data set's own, and without one, leaves out what stage 1 recorded of
            the images.
        out: folder of describe.html; None takes `describe` in the cache, and writes none without a cache.
        options: of the CSV files.

    Raises:
        InputError: bad input.
    """
    dataset, faults = read_with_faults(data, options)
    named = cache is not None
    if cache is None:
        cache = _own_cache(data)
    feature_cache = None if cache is None else FeatureCache(cache)
    splits = [describe_split(split, dataset.label_names, feature_cache) for split in dataset.splits.values()]
    if named and cache is not None and not any(split.summary and split.summary.known for split in splits):
        _refuse_other_images(cache, data)
    console = make_console()
    for split in splits:
        _print_split(console, split)
    _print_faults(console, faults)
    folder = out or (cache / "describe" if cache else None)
    if cache is None:
        console.print("what the images are like is not known: name their cache with --cache, once they are extracted")
    if folder is None:
        console.print(f"no page is written: name a folder for {PAGE} with --out")
        return
    values = {
        "title": data.resolve().name,
        "command": _command(data, cache, options),
        "splits": splits,
        "faults": faults,
        "shown": _KINDS_ON_PAGE,
        "shown_open": _OPEN_ENTRIES,
    }
    page = render(Path(__file__).with_name("page.html"), values)
    with replacing(folder / PAGE) as temporary:
        temporary.write_text(page, encoding="utf-8")
    console.print(f"written: {folder / PAGE}")


def _own_cache(data: Path) -> Path | None:
    """Find the data set's default cache; None if it has none, or another data set has taken its name."""
    try:
        cache = default_cache(data)
    except InputError:
        return None
    return cache if cache.is_dir() else None


def _refuse_other_images(cache: Path, data: Path) -> None:
    """Refuse a cache that has recorded images, but none of the data set.

    Raises:
        InputError: it has.
    """
    for table in FactsTable.of_cache(cache):
        if len(table):
            raise InputError(
                f"{cache} holds no image of {data}, but others ({table.path}). Name the cache of this data set with "
                "--cache."
            )


def _command(data: Path, cache: Path | None, options: DatasetOptions) -> str:
    """Write the command that makes this description, to be pasted into a shell."""
    given = {
        "--cache": cache,
        "--id-column": options.id_column,
        "--labels": ",".join(options.labels) if options.labels else None,
        "--group-column": options.group_column,
        "--groups": options.groups_file,
    }
    words = [word for name, value in given.items() if value is not None for word in (name, str(value))]
    return shlex.join(["python", "-m", "features", "describe", str(data), *words])


def _print_split(console: Console, split: Description) -> None:
    """Print one split."""
    groups = "groups not known"
    if split.groups is not None:
        least, median, greatest = split.images_per_group
        groups = f"{split.groups:,} groups of {least:g} to {greatest:g} images (median {median:g})"
    console.print(f"{split.name}: {split.images:,} images; {groups}")
    if split.without_group:
        console.print(f"  {split.without_group:,} images have no group")
    if split.labels:
        _print_labels(console, split)
    else:
        console.print("  no labels")
    for what, image_ids in (
        ("rows of the CSV file have no image", split.without_image),
        ("images have no row in the CSV file", split.without_row),
        ("images have a row, but a label is missing", split.unlabelled),
    ):
        if image_ids:
            console.print(f"  {len(image_ids):,} {what}{_colon(image_ids)}")
    if split.summary is not None:
        _print_images(console, split.summary)


def _print_labels(console: Console, split: Description) -> None:
    """Print prevalence, labels together, and combinations."""
    table = Table(box=None, header_style="bold", padding=(0, 1, 0, 2))
    table.add_column("label", overflow="fold")
    several = len(split.labels) > 1
    # The names of many labels would not fit beside each other: the page has them.
    beside = split.labels if several and len(split.labels) <= _SHOWN else ()
    headings = ["positive", "prevalence", "negative", "missing", *(["groups"] if split.groups is not None else [])]
    for heading in (*headings, *(f"with {label.name}" for label in beside)):
        table.add_column(Text(heading), justify="right", overflow="fold")
    for row, label in enumerate(split.labels):
        share = "-" if label.prevalence is None else f"{label.prevalence:.1%}"
        cells = [f"{label.positive:,}", share, f"{label.negative:,}", f"{label.missing:,}"]
        cells += [] if label.groups is None else [f"{label.groups:,}"]
        cells += ["" if row == place else f"{split.together[row, place]:,}" for place in range(len(beside))]
        table.add_row(Text(label.name), *cells)
    console.print(table)
    if several:
        console.print(f"  combinations: {_counts(split.combinations)}")


def _print_images(console: Console, summary: ImageSummary) -> None:
    """Print what stage 1 recorded."""
    if summary.unknown:
        console.print(f"  {summary.unknown:,} images have no record: not extracted yet")
    if summary.known:
        console.print(f"  images: {'; '.join(_counts(of) for of in summary.kinds.values())}")
        least, lower, median, upper, greatest = summary.brightness
        console.print(
            f"  brightness (mean of an image, 0 to 1): {least:.3f} to {greatest:.3f}, median {median:.3f}, half of "
            f"them from {lower:.3f} to {upper:.3f}"
        )
        console.print(f"  blank or nearly so: {len(summary.blank) or 'none'}{_colon(summary.blank)}")
        console.print(f"  standing out: {len(summary.outliers) or 'none'}")
        for image_id in list(summary.outliers)[:_SHOWN]:
            console.print(f"    {image_id}: {summary.outliers[image_id]}")
        if len(summary.outliers) > _SHOWN:
            console.print(f"    and {len(summary.outliers) - _SHOWN:,} more")
    if summary.rejected:
        console.print(f"  could not be read: {len(summary.rejected):,}{_colon(list(summary.rejected))}")


def _print_faults(console: Console, faults: Faults) -> None:
    """Print what `classify run` refuses."""
    if not faults.count:
        return
    kinds = Counter(fault.kind for fault in faults.kept)
    console.print(f"{faults.count:,} faults that classify run refuses, of these kinds: {_counts(kinds)}")
    for fault in faults.kept[:_SHOWN]:
        console.print(f"  {fault}")
    if faults.count > _SHOWN:
        console.print(f"  and {faults.count - _SHOWN:,} more: {PAGE} lists them")


def _colon(names: Sequence[str]) -> str:
    """List names behind a colon; nothing if there are none."""
    return f": {first_few(names, _SHOWN)}" if names else ""


def _counts(of: Mapping[str, int]) -> str:
    """List kinds with their counts."""
    return first_few([f"{kind} {count:,}" for kind, count in of.items()], _SHOWN)
