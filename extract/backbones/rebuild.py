"""Build the backbones again that features were extracted with, from the recipes of their rows."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from extract.backbones.build import FrozenBackbone
from extract.backbones.folding import fold_batch_norms
from extract.backbones.table import backbone_named
from extract.backbones.weights import find_model, find_weights
from extract.images.reading import Reading
from extract.runtime import preprocess
from features.common.errors import InputError
from features.common.files import digest_file
from features.common.keras_import import import_keras
from features.folds.tuning import read_member, tuned_name
from features.store.recipe import Recipe, backbone_of

if TYPE_CHECKING:
    import keras


def freeze(recipes: Sequence[Recipe], weights_dir: Path | None) -> FrozenBackbone:
    """Find the backbone, of Keras, that some rows were extracted with.

    Args:
        recipes: of the rows of one pass, in the order of `FEATURES`.
        weights_dir: a folder that may hold the ImageNet weights.

    Raises:
        InputError: its weights are missing, or are not those that the rows were extracted with.
    """
    first = recipes[0]
    features = tuple(recipe.features for recipe in recipes)
    if first.tuned:
        backbone = _find_tuned(first, features)
    elif first.is_own_model:
        name, weights = find_model(f"{backbone_of(first.backbone)}={first.weights}")
        layers = {recipe.features: recipe.layer for recipe in recipes}
        pooling = "".join(recipe.pooling_option for recipe in recipes)
        backbone = FrozenBackbone.of_model(name, weights, features, layers, recipes, pooling)
    else:
        row = backbone_named(backbone_of(first.backbone))
        weights = find_weights(row, first.weights_option, weights_dir)
        backbone = FrozenBackbone.of_table(row, weights, first.precision, features, first.input_size)
    for recipe, ours in zip(recipes, backbone.recipes(first.storage, Reading.of(first)), strict=True):
        if ours.fingerprint != recipe.fingerprint:
            raise InputError(
                f"the features of {recipe.backbone} were extracted in another way than now "
                f"({recipe.differences(ours)}). Bring back what they were extracted with, or extract and classify "
                "again."
            )
    return backbone


def _find_tuned(recipe: Recipe, features: tuple[str, ...]) -> FrozenBackbone:
    """Find the backbone, fine-tuned on all training rows, that gives the rows of new images."""
    path, name = Path(recipe.weights), tuned_name(recipe.backbone)
    found = read_member(path)
    if found is None or found[0].digest != recipe.tuned or digest_file(path).hex() != recipe.weights_digest:
        what = "is of another fine-tuning than the features" if path.exists() else "is missing"
        raise InputError(
            f"{path} {what}: it has to hold {name}, fine-tuned on all training rows (BLAKE2b-128 "
            f"{recipe.weights_digest}). Put it back, or run extract finetune and classify run again."
        )
    return FrozenBackbone.of_tuned(name, path, found[0], features)


def build_from_pixels(backbone: FrozenBackbone) -> "keras.Model":
    """Build the Keras model of a backbone with its preprocessing inside, as the extraction compiles it.

    Returns:
        Model from uint8 (N, S, S, 3) RGB to pooled features, a list of float32 (N, D), one for each of its rows.
    """
    keras = import_keras()
    size = backbone.input_size
    images = keras.Input((size, size, 3), dtype="uint8", name="images")
    rows = keras.tree.flatten(fold_batch_norms(backbone.build_rows())(preprocess(images, backbone.preprocessing)))
    return keras.Model(images, [keras.ops.cast(row, "float32") for row in rows], name=backbone.name)
