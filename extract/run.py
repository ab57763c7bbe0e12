"""What `python -m extract run` does: read the options, extract, say what was done, choose the exit code."""

import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from itertools import chain
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console

from extract.backbones.onnx_model import AnyBackbone
from extract.backbones.own_model import parse_taps
from extract.backbones.weights import refuse_unless_one
from extract.choices import (
    choose_backbones,
    choose_reading,
    choose_sizes,
    choose_window,
    find_images,
    kept_reading,
    refuse_ranges,
    say_plain_images,
)
from extract.extraction import CompiledBackbones, ExtractionOptions, Watch, Work, extract, try_out
from extract.forecast import Forecast
from extract.images.reading import Ranges, Reading, name_views, parse_range
from extract.options import ExtractOptions
from extract.pipeline import UNIT_IMAGES, Images
from extract.report import Report, print_images, print_report, show_progress
from extract.runtime import cores
from extract.shards.assembling import finish_run
from extract.shards.cluster import Cluster, extract_by_ray
from extract.shards.records import Shard, plan_run
from extract.shards.shard import extract_shard, is_up_to_date
from features.common.cli import EXIT_REJECTED, choose_names, read_options, read_path
from features.common.cluster import check_cluster
from features.common.commands import option_words, write_command
from features.common.errors import InputError, heeded_signals
from features.common.text import count_things, duration, make_console, size
from features.options import OF_IMAGES
from features.shards import ShardRecords
from features.store.cache import FeatureCache, claim_default_cache, default_cache
from features.store.cache_file import CacheFile
from features.store.recipe import FEATURES, NAMED_WEIGHTS
from features.store.source import Source, write_source

#: Options that say which images there are and what is read with them, and that no recipe holds.
_KEPT = (*OF_IMAGES, "split", "max_pixels", "weights_dir")


def run_extraction(options: ExtractOptions) -> int:
    """Run the command.

    Returns:
        The exit code: 0 done, 3 done but some images could not be read, 128 + signal if stopped.

    Raises:
        InputError: bad options or bad input.
    """
    console = make_console()
    start = time.monotonic()
    _check_options(options)
    shard = None if options.shard is None else Shard.parse(options.shard)
    if options.cluster and shard:
        raise InputError(f"--shard {shard} is one process of many. Leave it out: --cluster runs all shards.")
    if options.cluster and options.dry_run:
        raise InputError("--dry-run measures this machine alone. Leave --cluster out, or --dry-run.")
    check_cluster(options.cluster, address=options.address, actor_cpus=options.actor_cpus)
    cache = options.cache or default_cache(options.data)
    images = find_images(options.data, options.split, options, lambda line: console.print(f"understood: {line}"))
    window = choose_window(options.window, images, cache, lambda line: console.print(f"understood: {line}"))
    say_plain_images(images, window, console.print)
    stop = threading.Event()
    with _signals(stop, console) as received:
        backbones = choose_backbones(options, cache, images, console.print)
        kept = kept_reading(options, cache, backbones, images, console.print)
        if options.cache is None and not options.dry_run:
            claim_default_cache(options.data)
        counts = " and ".join(f"{len(split.image_ids):,} {split.split}" for split in images)
        names = ", ".join(backbone.name for backbone in backbones)
        console.print(f"{counts} images of {options.data} through {names}, into {cache}")
        reading = replace(choose_reading(options, kept, cache, images, console, stop.is_set), window=window)
        how = ExtractionOptions(cache, options.dtype, options.workers or cores(), reading)
        compiled = CompiledBackbones(options.batch_size, options.engine)
        mine = shard.share(images) if shard else images
        count = sum(len(split.image_ids) for split in mine)
        if options.dry_run:
            _say_share(shard, count, console)
            work = Work(mine, backbones, how)
            report = try_out(work, compiled, console, stop)
            return 128 + received[0] if received else _conclude_dry_run(work, report, cache, console)
        _note_sources(options, cache, images, backbones, reading)
        if options.cluster:
            work, command = Work(images, backbones, how).with_salt(), _command(options, cache)
            cluster = Cluster(options.address, options.actor_cpus, options.batch_size, options.engine)
            report, run = extract_by_ray(work, command, cluster, console, stop)
            if not received:
                report.take_images(finish_run(cache, run, console.print))
        elif shard is None:
            report = extract(images, backbones, how, compiled, console, stop)
        else:
            work = Work(images, backbones, how).with_salt()
            run, records = plan_run(work, shard.count, _command(options, cache)), ShardRecords(cache)
            if records.run() is None and is_up_to_date(work):
                console.print("nothing left to do: the rows of every shard are up to date.")
                return 0
            records.begin(run)
            _say_share(shard, count, console)
            with show_progress(console, count) as advance:
                report = extract_shard(work, run, shard, compiled, Watch(advance, stop.is_set, console.print))
        _note_sources(options, cache, images, backbones, reading)
    seconds = time.monotonic() - start
    if shard and not received:
        return _conclude_shard(report, shard, cache, seconds, console)
    return _conclude(report, cache, seconds, console, received)


def extract_features(data: Path | str, **options: Any) -> FeatureCache:
    """Bring the cache of a data set up to date, as `scripts/extract.sh` does.

    Args:
        data: folder of the data set.
        options: those of the command, such as `backbones=["resnet50"]` or `cache="features/cache/ich"`.

    Returns:
        The cache.

    Raises:
        InputError: bad options or bad input.
        KeyboardInterrupt: it was stopped; everything computed until then is kept.
    """
    chosen = read_options(ExtractOptions, {"data": read_path("data", data), **options})
    if run_extraction(chosen) not in (0, EXIT_REJECTED):
        raise KeyboardInterrupt
    return FeatureCache(chosen.cache or default_cache(chosen.data), chosen.data)


def _check_options(options: ExtractOptions) -> None:
    """Refuse by an `InputError` what no images make right, before thousands of them are looked at."""
    if options.weights_dir is not None and not options.weights_dir.is_dir():
        raise InputError(f"--weights-dir {options.weights_dir} is not a folder. Name the one that holds the weights.")
    if options.precision != "float32" and options.backbone:
        raise InputError(
            f"--precision {options.precision} is for the backbones of the table: a model of your own runs in the "
            f"precision that it was saved with. Run it in a command of its own."
        )
    if options.split is not None and options.cache is None:
        raise InputError("--split reads a folder that is not a data set, so it has no default cache. Give --cache.")
    for name in ("layer", "taps", "pooling"):
        refuse_unless_one(f"--{name}", getattr(options, name), options.backbone)
    if options.sizes != "native" and options.backbone:
        raise InputError(
            f"--sizes {options.sizes} is for the backbones of the table: a model of your own has one size."
        )
    features = choose_names(options.features, "--features", "a kind of features", FEATURES)
    for name, kind in (("layer", "last"), ("taps", "mid")):
        if (value := getattr(options, name)) is not None and kind not in features:
            raise InputError(f"--{name} {value} is for the features {kind}. Leave it out, or add {kind} to --features.")
    parse_taps(options.taps)
    choose_sizes(options)
    if options.range not in (None, "auto"):
        parse_range(options.range or "")
    if options.ranges is not None:
        Ranges.parse(options.ranges)
    if options.views is not None:
        refuse_ranges(options.ranges, name_views(options.views))


def _command(options: ExtractOptions, cache: Path) -> list[str]:
    """The words of the command that these options are of, but for --shard, for any folder that it is run from."""
    defaults = {field.name: field.default for field in fields(ExtractOptions)}
    given = {name: value for name, value in vars(options).items() if value != defaults[name]}
    given |= {name: value.resolve() for name, value in given.items() if isinstance(value, Path)}
    models = [option.partition("=") for option in options.backbone or ()]
    given["backbone"] = [f"{name}={Path(file).resolve()}" for name, _, file in models]
    if options.weights not in NAMED_WEIGHTS:
        given["weights"] = Path(options.weights).resolve()
    given |= dict.fromkeys(("data", "shard", "cluster", "address", "actor_cpus")) | {"cache": cache.resolve()}
    return [str(options.data.resolve()), *option_words(given)]


def _note_sources(
    options: ExtractOptions,
    cache: Path,
    images: Sequence[Images],
    backbones: Sequence[AnyBackbone],
    reading: Reading,
) -> None:
    """Keep beside each cache file what it is extracted from, for the commands that messages print.

    Where there are rows of another recipe, their note stays: they are replaced only at the end of a whole run.
    """
    defaults = {field.name: field.default for field in fields(ExtractOptions)}
    given = {name: value for name in _KEPT if (value := getattr(options, name)) != defaults[name]}
    given = {name: value.resolve() if isinstance(value, Path) else value for name, value in given.items()}
    for split in images:
        for recipe in chain.from_iterable(backbone.recipes(options.dtype, reading) for backbone in backbones):
            path = cache / split.split / f"{recipe.backbone}.h5"
            if not path.exists() or CacheFile.open(path).fingerprint == recipe.fingerprint:
                if recipe.weights not in NAMED_WEIGHTS:
                    recipe = replace(recipe, weights=str(Path(recipe.weights).resolve()))
                write_source(path, Source(options.data.resolve(), given, recipe))


@contextmanager
def _signals(stop: threading.Event, console: Console) -> Iterator[list[int]]:
    """Let the first signal end the run cleanly, and a second one at once; yield the list of signals received."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received  # only the main thread may handle signals
        return

    def handle(number: int, frame: FrameType | None) -> None:
        received.append(number)
        stop.set()
        console.print(
            "stopping: what is being computed or compiled is finished, and all that is computed is written ..."
        )
        for other, handler in previous.items():
            signal.signal(other, handler)

    previous = {number: signal.signal(number, handle) for number in heeded_signals()}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _say_share(shard: Shard | None, count: int, console: Console) -> None:
    """Say how many of the images a shard has, if this is one."""
    if shard is not None:
        spare = "" if count else f". Fewer shards would do: images are dealt out {UNIT_IMAGES} at a time"
        console.print(f"shard {shard}: {count:,} of these images{spare}")


def _conclude(report: Report, cache: Path, seconds: float, console: Console, received: Sequence[int]) -> int:
    """Say what was done; return the exit code."""
    if report.rows or received:
        print_report(report, console)
    if received:
        console.print(f"stopped after {duration(seconds)}: {report.rows:,} new rows are kept; run again to go on.")
        return 128 + received[0]
    if report.rows:
        total = sum(path.stat().st_size for path in cache.glob("*/*.h5"))
        console.print(
            f"{count_things(report.rows, 'row')} extracted in {duration(seconds)}; {cache} now holds {size(total)}."
        )
    else:
        kept = sum(backbone.kept * len(backbone.rows) for backbone in report.backbones.values())
        console.print(f"nothing left to do: all {kept:,} rows are up to date (checked in {duration(seconds)}).")
    return EXIT_REJECTED if print_images(report, cache, console) else 0


def _conclude_dry_run(work: Work, report: Report, cache: Path, console: Console) -> int:
    """Say what an extraction would take."""
    if report.rows:
        for line in Forecast(work).lines(report, done=False):
            console.print(line)
    unread = ""
    if report.rejected:
        first = report.rejected[0]
        unread = f", of which {len(report.rejected):,} could not be read (first: {first.path}: {first.reason})"
    console.print(f"dry run: {count_things(report.images, 'image')} tried{unread}. {cache} is as it was.")
    return EXIT_REJECTED if report.rejected else 0


def _conclude_shard(report: Report, shard: Shard, cache: Path, seconds: float, console: Console) -> int:
    """Say what a shard did, and what is next; images that it could not read are for the assembly to list."""
    print_report(report, console)
    console.print(
        f"shard {shard}: {count_things(report.rows, 'row')} extracted in {duration(seconds)}, "
        f"{count_things(len(report.rejected), 'image')} could not be read. When all {shard.count:,} are done, run: "
        f"{write_command('extract assemble', cache)}"
    )
    return 0
