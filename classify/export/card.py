"""The model card of what is exported: Markdown with the front matter of Hugging Face."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from classify.rundir.files import read_metrics, read_run_table, read_thresholds
from classify.rundir.folder import MARK, OPERATING_POINTS, THRESHOLDS
from classify.rundir.saved_run import SavedRun
from classify.scores.metrics import MACRO
from features.common.files import digest_file
from features.common.text import count_things
from features.folds.tuning import Tuning
from features.store.recipe import NO_WINDOW, Recipe

#: The metrics of the card, and what their columns are called.
_METRICS = {"roc_auc": "AUC", "average_precision": "AP", "log_loss": "log loss", "brier": "Brier score"}
#: How to call what is written, by format; `IMAGES` is what goes in.
_CALLS = {
    "keras": """import keras, numpy as np
model = keras.saving.load_model("OUT")
found = model(IMAGES)
print(np.asarray(found["probabilities"]), np.asarray(found["decisions"]))""",
    "onnx": """import numpy as np, onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1  # many images: as many calls at a time as there are cores, from threads, 8 images each
session = onnxruntime.InferenceSession("OUT", options)
probabilities, decisions = session.run(["probabilities", "decisions"], IMAGES)
print(probabilities, decisions)""",
    "openvino": """import numpy as np, openvino
model = openvino.Core().compile_model("OUT", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
found = model(IMAGES)
print(found["probabilities"], found["decisions"])""",
    "tensorflow": """import numpy as np, tensorflow as tf
model = tf.saved_model.load("OUT")
found = model.serve(IMAGES)
print(found["probabilities"].numpy(), found["decisions"].numpy())""",
}


@dataclass(frozen=True)
class Exported:
    """What the card says of the file.

    Attributes:
        out: the file, or folder.
        format: a key of `_CALLS`, as Hugging Face calls the library.
        inputs: by name, the rows that the input is for.
        recipes: by name of rows, how they are made.
        licences: by name of rows, of the weights.
        tunings: what fine-tuned backbones have seen, by name.
        note: what pruning found; "" without it.
        gap: the largest difference from the run's own probabilities that was seen.
        command: that wrote it.
    """

    out: Path
    format: str
    inputs: Mapping[str, str]
    recipes: Mapping[str, Recipe]
    licences: Mapping[str, str]
    tunings: Mapping[str, Tuning]
    note: str
    gap: float
    command: str


def write_card(path: Path, saved: SavedRun, model: str, exported: Exported) -> None:
    """Write the card of a model of a run.

    Raises:
        InputError: a table of the run is missing, damaged, or was changed by hand.
    """
    pruned = [f"Pruned: {exported.note}."] if exported.note else []
    sections = {
        "How to use it": _usage(saved, exported),
        "What has to happen before": _preparation(exported),
        "What it is worth": _worth(saved, model),
        "Operating points": _operating_points(saved, model),
        "Data": _data(saved),
        "Model": "\n\n".join([_model(saved, model), *map(_describe_tuning, exported.tunings.values()), *pruned]),
        "Limits": _limits(saved),
        "Licences of the weights": _table(("features", "licence"), exported.licences.items()),
        "Fingerprints": _fingerprints(saved, exported),
    }
    body = "\n\n".join(f"## {title}\n\n{text}" for title, text in sections.items())
    labels = ", ".join(saved.label_names)
    kinds = {"fine-tuned" if recipe.tuned else "frozen": None for recipe in exported.recipes.values()}
    title = (
        f"# {exported.out.name}\n\nMulti-label image classification: {labels}. Made by Headbank from "
        f"{' and '.join(kinds)} backbones."
    )
    path.write_text(f"{_front_matter(saved, exported)}\n{title}\n\n{body}\n", encoding="utf-8")


def _front_matter(saved: SavedRun, exported: Exported) -> str:
    """The fields that Hugging Face reads, as YAML; a text in JSON's quotes is one in YAML, too."""
    licences = {licence.lower() for licence in exported.licences.values()}
    known = licences.pop() if len(licences) == 1 else "other"
    fields = {
        "license": "other" if ":" in known else known,
        "library_name": exported.format,
        "pipeline_tag": "image-classification",
        "tags": ["headbank", "multi-label", *saved.label_names],
        "metrics": list(_METRICS),
    }
    lines = [f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in fields.items()]
    return "\n".join(["---", *lines, "---"])


def _usage(saved: SavedRun, exported: Exported) -> str:
    """The code, what goes in and what comes out."""
    sizes = {name: exported.recipes[rows].input_size for name, rows in exported.inputs.items()}
    arrays = {name: f"np.zeros((1, {size}, {size}, 3), np.uint8)" for name, size in sizes.items()}
    named = "{" + ", ".join(f'"{name}": {array}' for name, array in arrays.items()) + "}"
    alone = len(arrays) == 1 and exported.format in ("keras", "tensorflow")
    images = next(iter(arrays.values())) if alone else named
    code = _CALLS[exported.format].replace("IMAGES", images).replace('"OUT"', json.dumps(exported.out.name))
    outputs = [
        *((f"`{name}`", f"uint8 (N, {size}, {size}, 3)", "RGB images, 0 to 255") for name, size in sizes.items()),
        ("`probabilities`", f"float32 (N, {len(saved.label_names)})", f"of {', '.join(saved.label_names)}, 0 to 1"),
        ("`decisions`", f"uint8 (N, {len(saved.label_names)})", "1 from the label's threshold on, else 0"),
    ]
    classes = "\n\nThe labels are classes: of each image the one of the highest probability." if saved.exclusive else ""
    alike = "\n\nAll inputs are of the same images, in the same order." if len(sizes) > 1 else ""
    return f"```python\n{code}\n```\n\n{_table(('name', 'array', 'what it holds'), outputs)}{alike}{classes}"


def _preparation(exported: Exported) -> str:
    """How a file becomes the pixels of each input."""
    words = []
    for name, rows in exported.inputs.items():
        recipe = exported.recipes[rows]
        resizing = recipe.preprocessing.partition(";")[0]
        tags = "turned upright by its tag of orientation" if recipe.orientation == "exif" else "as it is stored"
        low, high = recipe.intensity_range.split(",")
        window = "" if recipe.window == NO_WINDOW else f" Scans are shown through the window {recipe.window}."
        words.append(
            f"- `{name}`: the image is decoded, {tags}; of 16 bits, the values {low} to {high} become 0 to 255; grey "
            f"is repeated over RGB.{window} Then it is {resizing}: {recipe.input_size} x {recipe.input_size} pixels."
        )
    return (
        "\n".join(words)
        + "\n\nHalved is each side that is at least twice as long as it becomes, again and again, to half its length "
        "rounded down, by OpenCV's `INTER_AREA`; the rest is its `INTER_LINEAR`, on uint8 pixels. Other resizing gives "
        "other pixels, and somewhat other probabilities. Scaling of the pixels is inside the file."
    )


def _worth(saved: SavedRun, model: str) -> str:
    """The metrics by label, with their intervals."""
    found = read_metrics(saved)
    rows = []
    for split, words in (("oof", "out-of-fold"), ("test", "test")):
        for label in (*saved.label_names, MACRO):
            scores = [found.get((model, split, label, metric)) for metric in _METRICS]
            if any(score is not None for score in scores):
                rows.append((words, label, *map(_figure, scores)))
    if not rows:
        return "It is not a model of the run, but made of its models when it was exported: see what was pruned, below."
    unit = saved.record["intervals"]["unit"]
    caveat = "Out-of-fold: no model saw an image, nor one of its group, that it predicts; "
    written = "fitted on all images" if saved.record["refit"] else "the mean over the models of the folds"
    caveat += f"95 % intervals are over {unit}s. What is written here is {written}."
    return f"{_table(('images', 'label', *_METRICS.values()), rows)}\n\n{caveat}"


def _operating_points(saved: SavedRun, model: str) -> str:
    """Threshold, sensitivity and specificity of each label, cross-fitted; of the final model also other thresholds."""
    rule = saved.record["thresholds"]["rule"]
    rows = [
        (label, rule, f"{threshold:.4g}", "", "")
        for label, threshold in zip(saved.label_names, saved.thresholds(model), strict=True)
    ]
    if model in set(read_run_table(saved, THRESHOLDS)["model"]):
        found = read_thresholds(saved, model)
        costs = zip(rows, found["sensitivity"], found["specificity"], strict=True)
        rows = [(*row[:3], f"{sensitivity:.3f}", f"{specificity:.3f}") for row, sensitivity, specificity in costs]
    if model == saved.final_model and saved.holds(OPERATING_POINTS):
        table = read_run_table(saved, OPERATING_POINTS)
        table = table[(table["split"] == "oof") & (table["at"] != rule)]
        for (label, at), own in table.groupby(["label", "at"], sort=False):
            figures = {row.figure: _figure((row.value, row.low, row.high)) for row in own.itertuples()}
            threshold = f"{own['threshold'].iloc[0]:.4g}"
            rows.append((label, at, threshold, *(figures.get(name, "") for name in ("sensitivity", "specificity"))))
    table = _table(("label", "threshold for", "threshold", "sensitivity", "specificity"), rows)
    return (
        f"{table}\n\n`decisions` are by the thresholds for {rule}. The figures are out-of-fold, by cross-fitted ones."
    )


def _data(saved: SavedRun) -> str:
    """Images, labels, groups and folds."""
    record, folds = saved.record, saved.record["folds"]
    train = record["splits"]["train"]
    images = train["images"] - len(train["rejected"])
    groups = "no groups were known" if folds["groups"] is None else f"of {count_things(folds['groups'], 'group')}"
    repeats = f", {folds['repeats']} times" if folds["repeats"] > 1 else ""
    counts = [(label, train["positives"][label], f"{saved.learnt_share(label):.1%}") for label in saved.label_names]
    return (
        f"{Path(record['data']).name}: {count_things(images, 'training image')}, {groups}; {folds['count']} "
        f"folds{repeats}, none of which cuts a group.\n\n{_table(('label', 'positives', 'share'), counts)}"
    )


def _model(saved: SavedRun, model: str) -> str:
    """What predicts: the models and their shares."""
    entry = saved.models[model]
    said = [
        f"`{model}`, on {', '.join(saved.needs(model))}; {count_things(_count_fits(saved, model), 'fitted model')}."
    ]
    for member in saved.members_in_use(model):
        share = entry["shares"].get(member)
        said.append(f"- `{member}`" + (f": share {share:.3f}" if share is not None else ""))
    return "\n".join([said[0], *([""] if said[1:] else []), *said[1:]])


def _describe_tuning(tuning: Tuning) -> str:
    """Say what a backbone was fine-tuned on."""
    settings = tuning.settings
    return (
        f"`{tuning.name}` is {settings['backbone']}, fine-tuned on {', '.join(settings['labels'])} of "
        f"{count_things(len(tuning.image_ids), 'training image')} (`--unfreeze {settings['unfreeze']} --lr "
        f"{settings['learning_rate']:g}`). The backbone in this file has seen all of them; the out-of-fold figures are "
        f"by {settings['folds']} others, each of which has not seen the images of one fold."
    )


def _count_fits(saved: SavedRun, model: str) -> int:
    """Count the fitted models that predict, those of members among them."""
    return len(saved.models[model]["files"]) + sum(_count_fits(saved, member) for member in saved.members_in_use(model))


def _limits(saved: SavedRun) -> str:
    """What a reader has to know."""
    known = [
        "It knows images like those that it learnt from, read in the same way; of others it knows nothing.",
        "Its probabilities are for the shares of positives above; where a label is rarer or commoner, they are off.",
        "It is no medical device, and no one has approved it for any use.",
    ]
    return "\n".join(f"- {sentence}" for sentence in (*known, *saved.record["warnings"]))


def _fingerprints(saved: SavedRun, exported: Exported) -> str:
    """What proves where it is from, and the command."""
    rows = [("the run's record", digest_file(saved.folder / MARK).hex())]
    rows += [(f"features {name}", recipe.fingerprint) for name, recipe in exported.recipes.items()]
    rows += [(f"weights of {name}", recipe.weights_digest) for name, recipe in exported.recipes.items()]
    return (
        f"{_table(('of', 'BLAKE2b-128'), rows)}\n\nOn a few made-up images its probabilities differ by "
        f"{exported.gap:.1e} at most from the run's own.\n\n```\n{exported.command}\n```"
    )


def _figure(score: Sequence[float] | None) -> str:
    """Such as `0.894 [0.858, 0.925]`."""
    if score is None or np.isnan(score[0]):
        return ""
    value, low, high = score
    return f"{value:.3f}" + ("" if np.isnan(low) or np.isnan(high) else f" [{low:.3f}, {high:.3f}]")


def _table(heading: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table of Markdown."""
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join(f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in line)} |" for line in lines)
