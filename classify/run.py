"""What `python -m classify run` does: read, fit, write the run's files, say what was found.

What is wrong with the options, the data set or the cache is reported before the imports that take seconds.
"""

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import typer
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from classify.inputs import choose_features, describe_views, read_inputs, refuse_tuned
from classify.models.heads import OF_CHALLENGE
from classify.options import RunOptions, choose_kinds
from classify.rundir.folder import RUN_FILES, open_run
from classify.settings import check_settings, choose_exclusive, count_steps
from features.common.cli import EXIT_REJECTED, split_names
from features.common.cluster import check_cluster
from features.common.errors import InputError, unmasked_signals
from features.common.text import duration, first_few, progress_bar
from features.dataset.dataset import read_dataset
from features.store.cache import FeatureCache, default_cache
from features.store.gradients import write_gradients
from features.store.images_table import forget_tables
from features.store.run_labels import MARK
from features.store.scan_groups import with_scan_groups

if TYPE_CHECKING:
    from sklearn.base import ClassifierMixin


def run_classification(options: RunOptions, estimators: "Mapping[str, ClassifierMixin] | None" = None) -> int:
    """Run the command.

    Args:
        options: those of the command.
        estimators: baselines of a person's own, by the names that the options have for them.

    Returns:
        The exit code: 0 done, 3 done but rejected test images have no prediction.

    Raises:
        InputError: bad options or bad input.
        KeyboardInterrupt: it was stopped; that finished fits are kept has been said.
    """
    check_cluster(options.cluster, address=options.address)
    backbones = split_names(options.backbones, "--backbones")
    kinds, by = choose_kinds(options.features), split_names(options.by, "--by") or ()
    settings, mark = options.settings(estimators), None
    try:
        with unmasked_signals(), open_run(options.out, options.overwrite, options.groups) as staging:
            started = time.perf_counter()
            dataset = read_dataset(options.data, options, by)
            for line in dataset.understood:
                typer.echo(f"understood: {line}")
            cache = FeatureCache(options.cache or default_cache(options.data), options.data, backbones or ())
            dataset, said = with_scan_groups(dataset, cache.root)
            if said:
                typer.echo(f"understood: {said}")
            of_challenge = [name for name in settings.heads if name in OF_CHALLENGE]
            names, said = choose_features(cache, backbones, kinds, of_challenge)
            if said:
                typer.echo(f"understood: {said}")
            inputs = read_inputs(dataset, cache, names, options.tta, options.augment)
            groups_from, understood = dataset.groups_from, dataset.understood
            del dataset  # the paths of a million images take 0.4 GB
            forget_tables()
            if options.augment and not settings.heads:
                raise InputError("--augment is for heads, and --preset none trains none. Leave one of them out.")
            if said := describe_views(inputs.recipes, options.tta, options.augment):
                other = "none takes the first" if options.tta == "mean" else "mean takes their mean"
                typer.echo(f"understood: {said} (--tta {other})")
            if inputs.train.tuned and not options.refit:
                options = replace(options, refit=True)
                settings = replace(settings, refit=True)
                typer.echo(f"understood: --refit, as {first_few(list(inputs.train.tuned))} is fine-tuned")
            if options.holdout is not None:
                refuse_tuned(inputs, f"--holdout {options.holdout:g}")
                from classify.validation import hold_out

                inputs, said = hold_out(inputs, options.holdout, options.seed)
                typer.echo(f"understood: {said}")
            exclusive, said = choose_exclusive(options.exclusive, inputs)
            if said:
                typer.echo(said)
            settings = replace(settings, exclusive=exclusive)
            check_settings(settings, inputs)

            from classify.crossfit.store import FitStore
            from classify.crossfit.tasks import computing_by
            from classify.experiment import read_final, run_experiment
            from classify.explain import explain_gallery, say_what_was_explained
            from classify.rundir.console import print_summary
            from classify.rundir.files import write_files
            from classify.rundir.saved_run import SavedRun
            from classify.validation import validate

            # Threads change the last bits of a product, and where other programs are at work they wait for each other.
            with threadpool_limits(1, user_api="blas"):
                store = FitStore.beside(cache.root, options.fits_gb)
                say = partial(typer.echo, err=True)
                read = time.perf_counter()
                steps = count_steps(settings, inputs.columns)
                fitting = computing_by(options.cluster, options.address, options.jobs)
                with fitting, progress_bar("fitting and scoring", steps) as advance:
                    # The bar of a terminal says as much.
                    on_model = (lambda name, seconds: None) if sys.stderr.isatty() else partial(_say_fitted, say)
                    experiment = run_experiment(inputs, settings, advance, store, say, on_model)
                    experiment = validate(inputs, settings, read_final(inputs, experiment), advance, store)
                seconds = {"read": round(read - started, 3), "fit": round(time.perf_counter() - read, 3)}
                if store.reused:
                    say(f"fits: {store.reused} reused, {store.made} made")
                for warning in experiment.warnings:
                    typer.echo(f"warning: {warning}", err=True)
                print_summary(inputs, experiment, cache.root / "rejected.csv")
                where = {"data": str(options.data), "cache": str(cache.root), "groups_from": groups_from}
                made = {"note": options.note, "arguments": options.arguments(), "seconds": seconds}
                record = {**where, "understood": understood, **made}
                write_files(staging, inputs, experiment, record)
                explained = explain_gallery(SavedRun.open(staging), cache, experiment.final_model)
                write_gradients(staging, explained)
                mark = (staging / MARK).read_bytes()
    except KeyboardInterrupt:
        if mark and (options.out / MARK).is_file() and mark == (options.out / MARK).read_bytes():
            typer.echo(f"stopped when all was done: {options.out} is whole.", err=True)
        else:
            typer.echo("stopped: what was fitted until now is kept, and the same command goes on from there.", err=True)
        raise

    written = [name for name in RUN_FILES if (options.out / name).exists()]
    typer.echo(f"written to {options.out}: {', '.join(written)}")
    say_what_was_explained(explained, options.out)
    return EXIT_REJECTED if inputs.test is not None and inputs.test.rejected_ids else 0


def _say_fitted(say: Callable[[str], None], name: str, seconds: float) -> None:
    """Say that a model is fitted."""
    say(f"fitted: {name} ({duration(seconds)})")
