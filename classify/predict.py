"""What `python -m classify predict` does: read, predict, write, say so."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import compress
from pathlib import Path

import numpy as np

from classify.explain import Explainer, Reasons, explain, say_what_was_explained
from classify.options import PredictOptions
from classify.rundir.classes import write_classes
from classify.rundir.files import write_predictions
from classify.rundir.folder import (
    CLASSES,
    DECISIONS,
    MARK,
    PREDICTION,
    PREDICTION_LOCK,
    PREDICTION_PARTIAL,
    PROBABILITIES,
    clear,
    hold_run,
    writing,
)
from classify.rundir.saved_run import SavedRun
from classify.scores.prevalence import check_prevalences, parse_prevalences, shift_probability
from classify.scores.thresholds import to_binary
from features.common.cells import protect_tables
from features.common.cli import EXIT_REJECTED
from features.common.errors import InputError, signals_wait
from features.common.files import digest_file, read_record, remove, replacing
from features.common.text import count_things, make_console
from features.dataset.folder import scan_images
from features.store.cache import FeatureCache
from features.store.gradients import CAM, CAM_RECORD, GRADIENTS, write_gradients


def predict_split(options: PredictOptions) -> int:
    """Predict the images of a split.

    Returns:
        The exit code: 0, or 3 if images that stage 1 rejected have no prediction.

    Raises:
        InputError: no finished run, another fingerprint, missing features, a folder that cannot be written, or in which
            another process predicts.
    """
    open_model(options.run, options.model, options.prevalence)  # before the folder is made
    with hold_predictions(options.out, options.images, options.overwrite):
        return predict_held(options)


def open_model(
    run: Path, model: str | None, prevalence: Sequence[str] | None
) -> tuple[SavedRun, str, dict[str, float]]:
    """Open a run: it, the name of the model asked for or of the final one, and the prevalences by label.

    Raises:
        InputError: no finished run, no such model, or prevalences of other labels.
    """
    saved = SavedRun.open(run)
    name = saved.choose(model)
    prevalences = parse_prevalences(prevalence)
    check_prevalences(prevalences, saved.label_names)
    return saved, name, prevalences


@contextmanager
def hold_predictions(out: Path, images: Path | None, overwrite: bool) -> Iterator[None]:
    """Keep other processes from predicting into a folder while the block runs; see `check_folder` for what is refused.

    Raises:
        InputError: another process predicts into it, or it may not or cannot be written to.
    """
    check_folder(out, images, overwrite)
    with hold_run(out, PREDICTION_LOCK):
        check_folder(out, images, overwrite)  # another process may have written meanwhile
        yield


def predict_held(options: PredictOptions, *, leave_late: bool = False) -> int:
    """Predict the images of a split into a folder that is held; returns and raises what `predict_split` does.

    With `leave_late` images that came after the extraction are left out and counted, not refused.
    """
    run, out, split, images = options.run, options.out, options.split, options.images
    saved, name, prevalences = open_model(run, options.model, options.prevalence)
    feature_cache = FeatureCache(options.cache)
    if split not in feature_cache.splits():
        if unread := feature_cache.rejected(split):
            raise InputError(
                f"{images or split} holds no image that can be read: {feature_cache.root / 'rejected.csv'} says why of "
                f"{count_things(len(unread), 'image')}. Replace or remove them, and run again."
            )
        have = ", ".join(feature_cache.splits()) or "none"
        raise InputError(f"{feature_cache.root} holds no split {split!r}. Choose one of those that it has: {have}.")
    saved.refuse_other_features(feature_cache, split, name)
    backbones = saved.opens(name)
    image_ids, used_ids, late = _list_images(feature_cache, split, backbones, images, leave_late)
    saved.refuse_seen(feature_cache, split, name, used_ids, str(images or split))
    features = feature_cache.map(split, backbones, used_ids, saved.tta).load()
    probabilities = saved.predict(name, features)
    explained = None
    if options.heat:
        surest = _surest(split, used_ids, probabilities, options.heat)
        explained = explain(Explainer(saved, name), feature_cache, surest, len(used_ids))
    record = {
        "run": str(run.resolve()),
        "run_digest": digest_file(run / MARK).hex(),
        "model": name,
        "cache": str(feature_cache.root.resolve()),
        "split": split,
        "images": None if images is None else str(images.resolve()),
        "fingerprints": {backbone: saved.recipes[backbone].fingerprint for backbone in backbones},
        "views": {backbone: saved.recipes[backbone].describe_views(saved.tta) for backbone in backbones},
        "predicted": len(used_ids),
        "rejected": sorted(set(image_ids) - set(used_ids)),
        "prevalences": prevalences,
    }
    decisions = to_binary(probabilities, saved.thresholds(name))
    shares = [saved.learnt_share(label) for label in saved.label_names]
    for column, (label, share) in enumerate(zip(saved.label_names, shares, strict=True)):
        if label in prevalences:
            exact = probabilities[:, column].astype(np.float64)
            probabilities[:, column] = shift_probability(exact, share, prevalences[label])
    with _publishing(out) as staging:
        write_predictions(staging, image_ids, used_ids, probabilities, decisions, saved.label_names)
        if saved.exclusive:
            write_classes(staging, image_ids, used_ids, probabilities, saved.label_names)
        protect_tables(staging, options.excel_safe)
        if explained is not None:
            write_gradients(staging, replace(explained, excel_safe=options.excel_safe))
        with replacing(staging / PREDICTION) as temporary:
            temporary.write_text(
                json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8"
            )

    console = make_console()
    console.print(f"{len(used_ids):,} of {len(image_ids):,} images of {images or split} predicted by {name} of {run}")
    for label, prevalence in prevalences.items():
        console.print(
            f"{label}: probabilities are for a prevalence of {prevalence:g}, shifted from the "
            f"{saved.learnt_share(label):.4g} of the training images; its threshold moves along, so that "
            "decisions stay"
        )
    if late:
        console.print(f"{count_things(late, 'image')} came while features were extracted: run again")
    if rejected := len(image_ids) - len(used_ids):
        console.print(f"{rejected} could not be read by stage 1, so their cells are empty: {PREDICTION} lists them")
    written = [name for name in (PROBABILITIES, DECISIONS, CLASSES, PREDICTION) if (out / name).exists()]
    console.print(f"written to {out}: {', '.join(written)}")
    if explained is not None:
        say_what_was_explained(explained, out)
    return EXIT_REJECTED if rejected else 0


@contextmanager
def _publishing(out: Path) -> Iterator[Path]:
    """Lend a folder to write predictions to; when the block ends without an error, they replace those of `out`.

    Whatever ends it, there are the earlier predictions, or a record, the lent folder's, that says what replaces them.
    """
    staging = out / PREDICTION_PARTIAL
    with writing(out):
        clear(staging, PREDICTION)
        staging.mkdir(exist_ok=True)
    try:
        yield staging
        with writing(out), signals_wait():
            (out / PREDICTION).unlink(missing_ok=True)
            for name in (GRADIENTS, CLASSES):  # which the new ones may be without
                (out / name).unlink(missing_ok=True)
            if (out / CAM / CAM_RECORD).is_file():  # heat maps of the predictions that are replaced
                remove(out / CAM)
            for name in (PROBABILITIES, DECISIONS, CLASSES, GRADIENTS, PREDICTION):
                if (staging / name).exists():
                    (staging / name).replace(out / name)
    finally:
        clear(staging, PREDICTION)


def _surest(split: str, image_ids: Sequence[str], probabilities: np.ndarray, count: int) -> Reasons:
    """Choose the images of the highest probability of each label; of equals the first."""
    orders = np.argsort(-probabilities, axis=0, kind="stable")[:count]
    return {
        (split, image_ids[row], label): (("surest", rank),)
        for label, order in enumerate(orders.T)
        for rank, row in enumerate(order, start=1)
    }


def check_folder(out: Path, images: Path | None, overwrite: bool) -> None:
    """Refuse to replace other files than predictions, predictions of other images, or any without `overwrite`.

    Raises:
        InputError: the message says what the folder holds.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is not a folder. Name another with --out.")
    if (out / MARK).exists():
        raise InputError(f"{out} holds a run, which predictions would spoil. Name another folder with --out.")
    ours = (PREDICTION, PROBABILITIES, DECISIONS, CLASSES, GRADIENTS, CAM)
    found = [name for name in ours if (out / name).exists()]
    if not found:
        return
    unfinished = PREDICTION not in found
    path = out / PREDICTION_PARTIAL / PREDICTION if unfinished else out / PREDICTION
    if not path.exists():
        raise InputError(
            f"{out} holds {', '.join(found)} that `predict` did not write ({PREDICTION} is missing). Name another "
            "folder with --out."
        )
    record = read_record(path, "Name another folder with --out.", "images")
    if not overwrite and not unfinished:
        raise InputError(f"{out} holds predictions. Name another folder with --out, or replace them with --overwrite.")
    asked = None if images is None else str(images.resolve())
    if record["images"] != asked:
        raise InputError(
            f"{out} holds predictions of other images ({record['images'] or 'a split of a cache'}, not "
            f"{asked or 'a split of a cache'}). Name another folder with --out."
        )


def _list_images(
    cache: FeatureCache, split: str, backbones: Sequence[str], images: Path | None, leave_late: bool
) -> tuple[tuple[str, ...], tuple[str, ...], int]:
    """List the images to predict, and those of them that have features; refuse images that have changed since.

    With `leave_late` images of the folder that stage 1 has not seen are left out of both; the last value counts them.
    """
    if images is None:
        rejected = cache.rejected(split)
        cached = [image_id for image_id in cache.open(split, backbones[0]).image_ids if image_id not in rejected]
        image_ids = (*cached, *sorted(rejected))
        return image_ids, tuple(compress(image_ids, cache.has_features(split, image_ids))), 0
    if not images.is_dir():
        raise InputError(f"{images} is not a folder. Give the folder of the images that were extracted.")
    found = scan_images(images)
    image_ids = tuple(sorted(found))
    if leave_late:
        extracted = set.intersection(*(set(cache.open(split, backbone).index) for backbone in backbones))
        image_ids = tuple(sorted(found.keys() & (extracted | cache.rejected(split).keys())))
    used = tuple(compress(image_ids, cache.has_features(split, image_ids)))
    cache.refuse_changed(split, backbones, image_ids, [found[image_id] for image_id in image_ids])
    return image_ids, used, len(found) - len(image_ids)
