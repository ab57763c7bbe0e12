"""What `python -m extract check` does: run each backbone over a few images whose answer is known."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from extract.backbones.build import FrozenBackbone
from extract.backbones.onnx_model import AnyBackbone, OnnxBackbone
from extract.backbones.table import BACKBONES, Backbone, backbone_named
from extract.backbones.weights import Weights, find_models, find_weights, imagenet_file, refuse_unless_one
from extract.check.canary import CANARY_TOLERANCE, RECORDED, deviation_of_canary, draw_canary
from extract.check.photographs import EXPECTED, load_photographs
from extract.check.plausibility import doubt_scale
from extract.extraction import CompiledBackbones
from extract.images.resizing import resize
from extract.options import CheckOptions
from extract.runtime import Extractor
from features.common.cli import EXIT_BAD_INPUT, EXIT_REJECTED, split_names
from features.common.errors import InputError
from features.common.text import make_console

_BATCH = 4


def run_check(options: CheckOptions) -> int:
    """Run the command.

    Returns:
        The exit code: 0 nothing is wrong, 2 a backbone is, 3 there is one of which nothing can be said.

    Raises:
        InputError: bad options, weights that are missing or damaged, or nothing to check.
    """
    console = make_console()
    if options.weights_dir is not None and not options.weights_dir.is_dir():
        raise InputError(f"--weights-dir {options.weights_dir} is not a folder. Name the one that holds the weights.")
    refuse_unless_one("--pooling", options.pooling, options.backbone)
    own = [
        _own_backbone(name, weights, options.pooling or "") for name, weights in find_models(options.backbone).items()
    ]
    names = split_names(options.backbones, "--backbones")
    if names is None:
        names = () if own else tuple(name for name, row in BACKBONES.items() if imagenet_file(row, options.weights_dir))
    rows = [backbone_named(name) for name in names]
    for row in rows:
        if imagenet_file(row, options.weights_dir) is None:
            raise InputError(
                f"--backbones {row.name}: {' or '.join(row.weights_names)} is not on this machine. Put it into a "
                "folder and give --weights-dir, or extract with it once, which downloads it."
            )
    backbones: list[AnyBackbone] = [
        FrozenBackbone.of_table(row, find_weights(row, "imagenet", options.weights_dir), "float32") for row in rows
    ]
    backbones += own
    if not backbones:
        raise InputError(
            "nothing to check: the ImageNet weights of no backbone are on this machine. Give --weights-dir with the "
            "folder that holds them, or --backbone name=file.keras."
        )
    verdicts: dict[str, set[bool | None]] = {backbone.name: set() for backbone in backbones}
    for backbone in backbones:
        for is_wrong, words in _findings(backbone, options.weights_dir):
            console.print(f"{backbone.name}: {'WRONG: ' if is_wrong else ''}{words}")
            verdicts[backbone.name].add(is_wrong)
    wrong = [name for name, found in verdicts.items() if True in found]
    right = [name for name, found in verdicts.items() if True not in found and False in found]
    unknown = [name for name in verdicts if name not in (*wrong, *right)]
    if right:
        console.print(f"nothing is wrong with {', '.join(right)}")
    if unknown:
        console.print(f"{', '.join(unknown)}: whether loaded and preprocessed rightly cannot be told (see above)")
    if wrong:
        console.print(
            f"{', '.join(wrong)}: loaded or preprocessed wrongly. Do not use features of it. Of the table: run "
            "scripts/setup.sh and put the published weights in place; a model of your own: save it with its "
            "preprocessing inside, for RGB pixels from 0 to 255, or correct mean and std in the .json of an .onnx file."
        )
        return EXIT_BAD_INPUT
    return EXIT_REJECTED if unknown else 0


def _own_backbone(name: str, weights: Weights, pooling: str) -> AnyBackbone:
    """Read a model of one's own."""
    if not weights.label.endswith(".onnx"):
        return FrozenBackbone.of_model(name, weights, pooling=pooling)
    if pooling:
        raise InputError(f"--pooling {pooling}: the .json file beside {weights.path} says it. Leave it out.")
    return OnnxBackbone.of_model(name, weights)


def _findings(backbone: AnyBackbone, weights_dir: Path | None) -> Iterator[tuple[bool | None, str]]:
    """Say what is found of one backbone: whether it is wrong, None where that does not tell; and in words what."""
    canary = draw_canary(backbone.input_size)[None]
    compiled = CompiledBackbones(_BATCH)
    extractor = compiled(backbone, canary)
    yield None, f"computed by {extractor.engine} on {compiled.device}"

    def features_of(images: np.ndarray) -> np.ndarray:
        batches = [extractor(images[start : start + _BATCH])[0] for start in range(0, len(images), _BATCH)]
        return np.concatenate(batches)

    if isinstance(backbone, OnnxBackbone) or backbone.architecture is None:
        yield doubt_scale(features_of, backbone.input_size)
        return
    row = backbone.architecture
    yield _check_canary(row, features_of(canary)[0])
    if classifier := imagenet_file(row, weights_dir, classifier=True):
        yield from _check_classes(backbone.compile(_BATCH, "auto", canary, classifier), row.input_size)
    else:
        yield None, f"photographs: not done, for {row.classifier_names[0]} is not on this machine"


def _check_canary(row: Backbone, features: np.ndarray) -> tuple[bool | None, str]:
    """Hold the features of the canary to those recorded."""
    if row.name not in RECORDED:
        return None, "canary: not done, for no features of it are recorded"
    difference = deviation_of_canary(row.name, features)
    words = (
        f"canary: its features differ by {difference:.2g} deviations from those recorded (at most {CANARY_TOLERANCE:g})"
    )
    return not difference <= CANARY_TOLERANCE, words  # NaN is wrong, too


def _check_classes(classifier: Extractor, size: int) -> Iterator[tuple[bool, str]]:
    """Hold the classes that a classifier, of an input size, gives the photographs to what these show."""
    photographs = load_photographs()
    (probabilities,) = classifier(np.stack([resize(photo, size, "crop") for photo in photographs.values()]))
    for name, classes in zip(photographs, probabilities, strict=True):
        best = int(classes.argmax())
        found = EXPECTED[name].get(best)
        received = f"{name} is {found or 'something else'} (class {best}, {classes[best]:.0%})"
        yield found is None, received if found else f"{received}; expected {', '.join(EXPECTED[name].values())}"
