"""What `python -m extract assemble` does: put the shards together, as the end of a plain extraction does."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from extract.extraction import finish, make_filling
from extract.pipeline import UNIT_IMAGES, Filling, Found
from extract.report import Report, print_images
from extract.shards.records import Shard, read_found
from features.common.cli import EXIT_REJECTED
from features.common.errors import InputError
from features.common.text import count_things, duration, first_few, make_console, size
from features.shards import ShardedRun, ShardRecords, hold_files
from features.store.cache import FeatureCache
from features.store.images_table import FactsTable
from features.store.recipe import Recipe


def assemble_shards(cache: Path) -> int:
    """Run the command.

    Returns:
        The exit code: 0 done, 3 done but some images could not be read.

    Raises:
        InputError: a shard is missing, or its rows or its record are.
    """
    console, start = make_console(), time.monotonic()
    run = ShardRecords(cache).run()
    if run is None:
        _refuse_unfinished(cache)
        console.print(f"nothing left to do: no shards wait in {cache}.")
        return 0
    report = finish_run(cache, run, console.print)
    total = sum(path.stat().st_size for path in cache.glob("*/*.h5"))
    console.print(
        f"{count_things(run.count, 'shard')} put together in {duration(time.monotonic() - start)}; {cache} now holds "
        f"{size(total)}."
    )
    return EXIT_REJECTED if print_images(report, cache, console) else 0


def finish_run(cache: Path, run: ShardedRun, say: Callable[[str], object]) -> Report:
    """Put the shards of an extraction together, and remove their records.

    Args:
        cache: the cache's folder.
        run: the extraction.
        say: called with what changes in the cache.

    Returns:
        What is known of its images.

    Raises:
        InputError: a shard is missing, or its rows or its record are.
    """
    records, report = ShardRecords(cache), Report()
    recipes = [Recipe.from_attributes(recipe) for recipe in run.recipes]
    with hold_files(cache, run.splits, run.names):
        if missing := records.missing(run):
            raise InputError(
                f"{cache} waits for {len(missing):,} of {count_things(run.count, 'shard')}: {_run_again(run, missing)}"
            )
        splits = read_found(cache, run)
        fillings = {
            found.images.split: [make_filling(cache, found.images.split, recipe, say) for recipe in recipes]
            for found in splits
        }
        for found in splits:
            _refuse_missing_rows(cache, run, found, fillings[found.images.split])
        for found in splits:
            split = found.images.split
            finish(cache, found, FactsTable.of_split(cache, split), fillings[split], report, say)
        records.remove()
    return report


def _refuse_missing_rows(cache: Path, run: ShardedRun, found: Found, fillings: Sequence[Filling]) -> None:
    """Refuse to assemble where rows of shards that have ended are not there: something else removed them."""
    wanted = found.digests.keys() - {rejection.image_id for rejection in found.rejected}
    for filling in fillings:
        gone = {image_id for image_id in wanted if filling.lacks(image_id, found.digests[image_id])}
        missing = [place for place, image_id in enumerate(found.images.image_ids) if image_id in gone]
        if missing:
            numbers = sorted({place // UNIT_IMAGES % run.count + 1 for place in missing})
            raise InputError(
                f"{cache} lost {count_things(len(missing), 'row')} of {filling.name} in {found.images.split} (first: "
                f"{found.images.image_ids[missing[0]]}), extracted by --shard {_run_again(run, numbers)}"
            )


def _run_again(run: ShardedRun, numbers: Sequence[int]) -> str:
    """Name some shards, and the command of the first."""
    named = first_few([str(Shard(number, run.count)) for number in numbers], 4)
    return f"{named}. Run: {run.command_of(numbers[0])}{', and so on' if len(numbers) > 1 else ''}"


def _refuse_unfinished(cache: Path) -> None:
    """Refuse a folder without shards in which an extraction was stopped, or that is no cache."""
    files = FeatureCache(cache)
    if unfinished := files.unfinished():
        raise InputError(
            f"{cache} has no shards to put together, but the extraction of {unfinished[0]} was stopped. "
            f"Run: {files.remedy(unfinished[0].partition('/')[2], split=unfinished[0].partition('/')[0])}"
        )
    if not files.splits():
        raise InputError(f"{cache} has neither shards nor features. Name the folder that --cache gave to the shards.")
