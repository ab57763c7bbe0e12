"""The two ends of a fine-tuning: the part of a backbone that stays as it is, and the files that come out."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from extract.backbones.build import FrozenBackbone
from extract.finetune.blocks import find_cut
from extract.images.reading import Reading
from features.common.files import replacing
from features.common.keras_import import import_keras
from features.folds.tuning import Tuning
from features.store.recipe import Recipe

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class LowerPart(FrozenBackbone):
    """The part of a backbone before the blocks that are trained; its row is the map there, flattened, as float16.

    Attributes:
        unfreeze: names of the blocks that are trained.
    """

    unfreeze: str = ""

    @classmethod
    def of(cls, whole: FrozenBackbone, unfreeze: str) -> "LowerPart":
        """The lower part of a backbone of the table."""
        settings = {name: getattr(whole, name) for name in ("input_size", "preprocessing", "weights", "precision")}
        return cls(f".{whole.name}.maps", architecture=whole.architecture, unfreeze=unfreeze, **settings)

    def recipes(self, storage: str, reading: Reading) -> tuple[Recipe, ...]:
        """What decides the maps; they are stored as float16 whatever is asked for."""
        [recipe] = super().recipes("float16", reading)
        return (replace(recipe, pooling="none", layer=f"before {self.unfreeze}"),)

    def build_rows(self) -> "keras.Model":
        """Build the Keras model from (B, S, S, 3) preprocessed pixels to a list of one flattened map, (B, H W C)."""
        keras, whole = import_keras(), self.build_whole()
        cut = find_cut(whole, self.unfreeze).output
        return keras.Model(whole.inputs[0], [keras.layers.Flatten(dtype="float32")(cut)])


def save_tuned(model: "keras.Model", path: Path, tuning: Tuning, source: str, facts: Mapping[str, Any]) -> None:
    """Save a fine-tuned backbone as one .keras file, whole or not at all, with the rows that it has seen inside."""
    with TemporaryDirectory() as folder, replacing(path) as temporary:
        saved = Path(folder) / "model.keras"  # Keras asks for this ending
        model.save(saved)
        tuning.put_into(saved, source, facts)
        temporary.write_bytes(saved.read_bytes())
