"""Say what a head is: the layers that stand on pooled features, and how they are trained."""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

from features.common.errors import InputError

Optimiser = Literal["adam", "sgd"]
ClassWeight = Literal["none", "balanced"]


@dataclass(frozen=True)
class HeadSpec:
    """The layers and the training of one head; the defaults are those of the challenge's best model.

    The layers: batch normalisation of the features, dropout, then for every hidden layer Dense, ReLU and dropout, then
    Dense and sigmoid, one unit per label.

    Attributes:
        hidden_units: widths of the hidden layers, from the features on; empty for a linear head.
        batch_norm: whether the features are normalised, with a learnt scale and shift (Keras' momentum 0.99).
        dropout: share of the features, and of every hidden layer's units, set to 0 in training; 0 to below 1.
        l2: penalty on the squares of the dense kernels, not on biases, as Keras' L2; 0 or more.
        optimiser: `adam`, or `sgd` with Nesterov momentum 0.9.
        learning_rate: above 0.
        class_weight: `balanced` gives the positives and the negatives of each label the same total weight in the loss.
        label_smoothing: 0 to 1; a truth t is learnt as t * (1 - smoothing) + smoothing / 2.
        batch_size: rows a step; the last batch of an epoch may be shorter.
        epochs: passes over the training rows, at most.
        patience: epochs without a lower validation loss after which training stops: a count (int), or a share of the
            epochs (float, above 0 to 1; 1.0 never stops early).
        seed: of the initial weights.

    Raises:
        InputError: a value is out of range; the message names it.
    """

    hidden_units: tuple[int, ...] = ()
    batch_norm: bool = True
    dropout: float = 0.5
    l2: float = 1e-4
    optimiser: Optimiser = "adam"
    learning_rate: float = 1e-5
    class_weight: ClassWeight = "none"
    label_smoothing: float = 0.0
    batch_size: int = 16
    epochs: int = 100
    patience: int | float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        for name, accepted, wanted in (
            ("hidden_units", all(_is_count(units) for units in self.hidden_units), "widths of 1 or more"),
            ("dropout", 0 <= self.dropout < 1, "0 to below 1"),
            ("l2", 0 <= self.l2 < math.inf, "0 or more"),
            ("optimiser", self.optimiser in get_args(Optimiser), "adam or sgd"),
            ("learning_rate", 0 < self.learning_rate < math.inf, "above 0"),
            ("class_weight", self.class_weight in get_args(ClassWeight), "none or balanced"),
            ("label_smoothing", 0 <= self.label_smoothing <= 1, "0 to 1"),
            ("batch_size", _is_count(self.batch_size), "a count of 1 or more"),
            ("epochs", _is_count(self.epochs), "a count of 1 or more"),
            ("patience", _is_patience(self.patience), "a count of 1 or more, or a share above 0 to 1.0"),
            ("seed", _is_count(self.seed + 1), "a whole number of 0 or more"),
        ):
            if not accepted:
                raise InputError(f"head: {name} is {getattr(self, name)!r}. Give {wanted}.")

    @property
    def patience_epochs(self) -> int:
        """Patience as a count of epochs, 1 or more; a share is rounded to the nearest."""
        if isinstance(self.patience, int):
            return self.patience
        return max(1, round(self.patience * self.epochs))

    def count_parameters(self, width: int, labels: int) -> int:
        """Count the trainable parameters.

        Args:
            width: D, of the features.
            labels: L.

        Returns:
            The weights and biases of the dense layers, and two per feature for batch normalisation.
        """
        widths = [width, *self.hidden_units, labels]
        dense = sum((inputs + 1) * outputs for inputs, outputs in pairwise(widths))
        return dense + 2 * width * self.batch_norm


def _is_count(value: object) -> bool:
    """Whether a value is a whole number of 1 or more; True and 1.0 are none."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_patience(value: object) -> bool:
    """Whether a value is a count of 1 or more, or a share above 0 to 1."""
    return _is_count(value) or (isinstance(value, float) and 0 < value <= 1)
