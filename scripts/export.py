"""What `python -m classify export` does: join a run's model with its backbones, write them as one file, prove it."""

import json
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from classify.export.card import Exported, write_card
from classify.export.graph import OUTPUTS, as_float32, build_deciding, find_obstacle
from classify.export.prune import prune
from classify.options import ExportOptions
from classify.rundir.files import read_run_table
from classify.rundir.folder import LEADERBOARD_TABLE
from classify.rundir.saved_run import SavedRun
from classify.scores.thresholds import to_binary
from extract.backbones.rebuild import build_from_pixels, freeze
from extract.backbones.table import BACKBONES
from extract.engines.table import INSTALL
from extract.images.reading import MIRROR
from features.common.commands import join_words, option_words
from features.common.errors import InputError, cause_of
from features.common.keras_import import backend_name, import_keras
from features.common.text import make_console
from features.common.text import size as in_bytes
from features.folds.tuning import Tuning, read_member, tuned_name
from features.store.recipe import IDENTITY, Recipe, backbone_of, group_passes
from scripts.export_formats import FORMATS, SAVED_MODEL, Format, ImagesByInput, OutputsByName, as_taken, foreign_entry

#: By how much what is written may miss the run's own arithmetic, in probability; and where features are rounded to
#: float16, whose last bit may then be another one.
_TOLERANCE, _TOLERANCE_OF_FLOAT16 = 1e-5, 1e-3
#: Images that what is written is proved on.
_PROOF = 4
#: The fields of a recipe that say how an image becomes the pixels of an input.
_OF_PIXELS = ("input_size", "fit", "intensity_range", "orientation", "window", "interpolation")


def export_model(options: ExportOptions) -> None:
    """Write a model of a run and its card.

    Raises:
        InputError: the run is damaged, the model cannot be exported, OUT has no known suffix, exists, or cannot be
            written, weights or packages are missing; or what was written gives other probabilities than the run.
    """
    out, console = options.out, make_console()
    written = _choose_format(out, options.overwrite)
    saved = SavedRun.open(options.run)
    model = saved.choose(options.model)
    _refuse_obstacle(saved, model, options)
    note = ""
    if options.prune:
        pruning = prune(saved, model, {name: not _obstacle(saved, name) for name in saved.models})
        note = pruning.describe(model)
        console.print(f"pruned: {note}")
        saved, model = pruning.run, pruning.model
    recipes = {name: saved.recipes[name].as_read(saved.tta) for name in saved.needs(model)}
    inputs = _name_inputs(recipes)
    graph, features = _join(saved, model, recipes, inputs, options.weights_dir)
    console.print(f"{model} of {options.run}: {graph.count_params():,} parameters, on {', '.join(recipes)}")
    exact = all((recipe.storage, recipe.precision) == ("float32", "float32") for recipe in recipes.values())
    tolerance = _TOLERANCE if exact else _TOLERANCE_OF_FLOAT16
    tunings = _read_tunings(recipes)
    with _staging(out) as folder:
        facts = {"labels": saved.label_names, "thresholds": as_float32(saved.thresholds(model)).tolist()}
        run = _write(written, graph, folder / out.name, out, facts)
        gap = _prove(saved, model, graph, features, run, tolerance)
        if not gap <= tolerance:  # which what is not a number is not
            raise InputError(
                f"{out} is not written: its probabilities differ by {gap:.1e} from those of {options.run}, more than "
                f"{tolerance:g}. Choose another format, or another model by --model."
            )
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        about = Exported(
            out=out,
            format=written.name,
            inputs=inputs,
            recipes=recipes,
            licences={name: _licence(recipe, tunings.get(tuned_name(name))) for name, recipe in recipes.items()},
            tunings=tunings,
            gap=gap,
            note=note,
            command=_command(options),
        )
        write_card(folder / f"{out.name}.md", saved, model, about)
        _publish(folder, out, written)
    console.print(f"{out} ({in_bytes(size)}): {written.name}, {_describe_inputs(graph)}")
    console.print(f"proved on {_PROOF} images: its probabilities differ by {gap:.1e} at most from the run's own")
    console.print(f"{out}.md says how to use it, and what it is worth")


def _command(options: ExportOptions) -> str:
    """The command that made a file, as it was given."""
    given = option_words({"model": options.model, "prune": options.prune, "weights-dir": options.weights_dir})
    return join_words("python", "-m", "classify", "export", options.run, options.out, *given)


def _refuse_obstacle(saved: SavedRun, model: str, options: ExportOptions) -> None:
    """Refuse a model that cannot be exported, and name the best that can."""
    obstacle = _obstacle(saved, model)
    if not obstacle:
        return
    ranked = read_run_table(saved, LEADERBOARD_TABLE)["model"].tolist()
    best = next((name for name in ranked if not _obstacle(saved, name)), None)
    remedy = (
        f"The best model of the leaderboard that can: --model {best}"
        if best
        else "No model of the run can: make one with --baselines logistic, or of a backbone of Keras."
    )
    raise InputError(f"{model} of {options.run} cannot be exported: {obstacle}. {remedy}")


def _obstacle(saved: SavedRun, model: str) -> str:
    """Say why a model cannot be exported; "" if it can."""
    for name in saved.needs(model):
        recipe = saved.recipes[name].as_read(saved.tta)
        if recipe.weights.endswith(".onnx"):
            return f"{name} is the .onnx file {recipe.weights}, which Keras does not open"
        if not {*recipe.views} <= {IDENTITY, MIRROR}:
            return f"it reads the mean of {len(recipe.views)} random views, which the ids of the images draw"
    return find_obstacle(saved, model)


def _name_inputs(recipes: Mapping[str, Recipe]) -> dict[str, str]:
    """Name the inputs, one for each way in which images become pixels.

    Returns:
        By name some rows that the input is for: `images` if there is one, else by the size, with a number where two are
        of one size.
    """
    ways: dict[tuple[Any, ...], str] = {}
    for rows, recipe in recipes.items():
        ways.setdefault(_pixels(recipe), rows)
    if len(ways) == 1:
        return {"images": next(iter(ways.values()))}
    named: dict[str, str] = {}
    for rows in ways.values():
        name = f"images_{recipes[rows].input_size}"
        alike = sum(other == name or other.startswith(f"{name}_") for other in named)
        named[f"{name}_{alike + 1}" if alike else name] = rows
    return named


def _pixels(recipe: Recipe) -> tuple[Any, ...]:
    """All that decides how an image becomes pixels."""
    return tuple(getattr(recipe, field) for field in _OF_PIXELS)


def _join(
    saved: SavedRun, model: str, recipes: Mapping[str, Recipe], inputs: Mapping[str, str], weights_dir: Path | None
) -> tuple[Any, Any]:
    """Join the backbones and the head.

    Returns:
        Two Keras models of the same inputs, uint8 (N, S, S, 3): to the outputs, and to the features by name.
    """
    keras = import_keras()
    images, of_pixels = {}, {}
    for name, rows in inputs.items():
        size = recipes[rows].input_size
        of_pixels[_pixels(recipes[rows])] = images[name] = keras.Input((size, size, 3), dtype="uint8", name=name)
    features: dict[str, Any] = {}
    for _, kinds in group_passes(recipes):
        passed = list(kinds.values())
        seen, views = of_pixels[_pixels(passed[0])], passed[0].views
        backbone = build_from_pixels(freeze(passed, weights_dir))
        given = [
            keras.tree.flatten(backbone(seen if view == IDENTITY else keras.ops.flip(seen, axis=2))) for view in views
        ]
        for recipe, of_views in zip(passed, zip(*given, strict=True), strict=True):
            if recipe.storage == "float16":  # as the cache rounds them
                of_views = tuple(keras.ops.cast(keras.ops.cast(view, "float16"), "float32") for view in of_views)
            features[recipe.backbone] = sum(of_views) / len(views) if len(views) > 1 else of_views[0]
    ordered = {name: features[name] for name in recipes}
    taken = images if len(images) > 1 else next(iter(images.values()))
    return keras.Model(taken, build_deciding(saved, model)(ordered), name="headbank"), keras.Model(taken, ordered)


def _describe_inputs(graph: Any) -> str:
    """Say what goes in, such as `images (N, 224, 224, 3)`."""
    return ", ".join(f"{tensor.name} (N, {', '.join(map(str, tensor.shape[1:]))})" for tensor in graph.inputs)


def _read_tunings(recipes: Mapping[str, Recipe]) -> dict[str, Tuning]:
    """Read what fine-tuned backbones have seen, by name."""
    found = {tuned_name(name): read_member(Path(recipe.weights)) for name, recipe in recipes.items() if recipe.tuned}
    return {name: member[0] for name, member in found.items() if member is not None}


def _licence(recipe: Recipe, tuning: Tuning | None) -> str:
    """The licence of a backbone's weights; of a fine-tuned one of those that it began with."""
    name, weights, file = backbone_of(recipe.backbone), recipe.weights, Path(recipe.weights).name
    if tuning is not None:
        name, weights = tuning.settings["backbone"], tuning.settings.get("weights", "")
        file = f"what {name} was fine-tuned from"
    row = BACKBONES.get(name)
    if weights == "random":
        return "none: the weights are random"
    return row.licence if row and weights == "imagenet" else f"unknown: {file} is a file of its maker's"


def _write(
    written: Format, graph: Any, path: Path, out: Path, facts: Mapping[str, Sequence[object]]
) -> Callable[[ImagesByInput], OutputsByName]:
    """Write a graph in a format, and open it again."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of numpy, at what Keras does for tf2onnx
            written.write(graph, path, {name: json.dumps(value, ensure_ascii=False) for name, value in facts.items()})
        return written.open(path)
    except (OSError, MemoryError):
        raise
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise InputError(f"{out} cannot be written as {written.name}: {reason} Choose another format.") from error


def _prove(
    saved: SavedRun,
    model: str,
    graph: Any,
    features: Any,
    run: Callable[[ImagesByInput], OutputsByName],
    tolerance: float,
) -> float:
    """Compare what was written with the run's own arithmetic: the largest difference of a probability.

    Infinite where a decision differs whose probability is not that near to its threshold.
    """
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (_PROOF, 8, 8, 3), np.uint8)
    images = {}
    for tensor in graph.inputs:
        place = np.arange(tensor.shape[1]) * 8 // tensor.shape[1]
        images[tensor.name] = coarse[:, place][:, :, place]
    found = features(as_taken(images))
    rows = np.concatenate([np.asarray(found[name], np.float32) for name in saved.needs(model)], axis=1)
    expected, thresholds = saved.predict(model, rows), saved.thresholds(model)
    outputs = run(images)
    probabilities, decisions = (outputs[name] for name in OUTPUTS)
    gap = float(np.abs(probabilities - expected).max())
    clear = np.abs(expected - thresholds) > tolerance
    same = decisions == to_binary(expected, thresholds)
    return gap if (same | ~clear).all() else float("inf")


def _choose_format(out: Path, overwrite: bool) -> Format:
    """Choose the format by the suffix, and refuse what cannot be written before anything is built."""
    if out.suffix not in FORMATS:
        known = ", ".join(f"NAME{suffix} ({found.name})" for suffix, found in FORMATS.items())
        raise InputError(f"{out} ends in {out.suffix}, which is no format. Expected one of: {known}.")
    chosen = FORMATS[out.suffix]
    if backend_name() != "tensorflow":
        raise InputError(
            f"classify export needs Keras on TensorFlow, not on {backend_name()}. Leave KERAS_BACKEND out."
        )
    if missing := [name for name in chosen.needs if find_spec(name) is None]:
        raise InputError(f"{out} needs {' and '.join(missing)}: not installed. Run: {INSTALL}")
    there = [path for path in _paths(out, chosen) if path.exists() or path.is_symlink()]
    if there and not overwrite:
        raise InputError(f"{there[0]} is there already. Name another file, or replace it with --overwrite.")
    for path in there:
        if path.is_dir() and (path != out or out.suffix or not (out / SAVED_MODEL).is_file()):
            raise InputError(f"{path} is a folder that is no SavedModel. Name another file.")
    if out.is_dir() and (foreign := foreign_entry(out)):
        raise InputError(
            f"{out} holds {foreign.relative_to(out)}, which no export wrote, and would be deleted with it. Move it "
            "elsewhere, or name another folder."
        )
    return chosen


def _paths(out: Path, chosen: Format) -> list[Path]:
    """What is written: OUT, the file beside it, and the card."""
    beside = [out.with_suffix(chosen.beside)] if chosen.beside else []
    return [out, *beside, Path(f"{out}.md")]


@contextmanager
def _staging(out: Path) -> Iterator[Path]:
    """Lend a folder beside OUT, in which it is written."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.")
    except OSError as error:
        raise InputError(f"{out.parent} cannot be written: {cause_of(error)} Or name another OUT.") from None
    with folder as path:
        yield Path(path)


def _publish(folder: Path, out: Path, chosen: Format) -> None:
    """Move what was written to its place; what was there before is deleted only when the new one is in."""
    for target in _paths(out, chosen):
        written, old = folder / target.name, folder / f"{target.name}.old"
        if written.is_file():
            written.replace(target)
            continue
        try:  # no call replaces a folder
            if os.path.lexists(target):
                target.rename(old)
            written.rename(target)
        except BaseException:
            if os.path.lexists(old) and not os.path.lexists(target):
                old.rename(target)
            raise
