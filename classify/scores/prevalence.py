"""How common a label is where a model is used: read a person's own figures, and shift probabilities to them."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from features.common.errors import InputError

#: The least share of a label, and what a share leaves to 1: below float32 probabilities would all be 0.
_LEAST = 1e-6


def parse_prevalences(texts: Sequence[str] | None) -> dict[str, float]:
    """Read words such as `epidural=0.01`, a label each.

    Raises:
        InputError: one is none, is not from 1e-6 to 1 - 1e-6, or is of a label that another is of.
    """
    shares: dict[str, float] = {}
    for text in texts or ():
        label, _, number = text.rpartition("=")
        try:
            share = float(number)
        except ValueError:
            share = 0.0
        if not label or not _LEAST <= share <= 1 - _LEAST:
            raise InputError(
                f"--prevalence {text!r}: expected a label and a share from {_LEAST:g} to {1 - _LEAST:g}, such as "
                "epidural=0.01."
            )
        if label in shares:
            raise InputError(f"--prevalence names {label} twice. Give one share for each label.")
        shares[label] = share
    return shares


def check_prevalences(shares: Mapping[str, float], label_names: Collection[str]) -> None:
    """Refuse, by an `InputError`, a share of what is not a label."""
    unknown = [label for label in shares if label not in label_names]
    if unknown:
        raise InputError(
            f"--prevalence names {unknown[0]!r}, which is not a label. The labels: {', '.join(label_names)}."
        )


def shift_probability(probability: Any, learnt: float, prevalence: float) -> Any:
    """Give the probabilities, 0-1, of a model that learnt where the label was another share of the images.

    Odds times the ratio of the odds of the two shares (Elkan 2001, theorem 2; Saerens et al. 2002, equation 4):
    positives look the same in both places, and negatives too, only their shares differ. It rises, so no order changes.
    """
    ratio = prevalence / (1 - prevalence) * (1 - learnt) / learnt
    return probability * ratio / (probability * ratio + 1 - probability)
