"""Name the heads that are worth a first try."""

from collections.abc import Mapping
from types import MappingProxyType

from classify.heads import HeadSpec
from features.errors import InputError

#: Specs by name. `challenge` is the best model of the challenge's author (behold.ai, 2020); `challenge-sgd` its other
#: optimiser, at Keras' default learning rate, for the author gives none.
PRESETS: Mapping[str, HeadSpec] = MappingProxyType(
    {
        "challenge": HeadSpec(),
        "challenge-sgd": HeadSpec(optimiser="sgd", learning_rate=1e-2),
        "linear": HeadSpec(dropout=0.0, l2=1e-4, learning_rate=1e-3, batch_size=256),
        "wide": HeadSpec(hidden_units=(512,), learning_rate=1e-3, batch_size=256),
        "deep": HeadSpec(hidden_units=(256, 128, 64), dropout=0.3, learning_rate=1e-3, batch_size=256),
    }
)


def preset(name: str) -> HeadSpec:
    """Look up a preset.

    Args:
        name: a key of `PRESETS`.

    Raises:
        InputError: there is none of that name; the message lists them.
    """
    try:
        return PRESETS[name]
    except KeyError:
        raise InputError(f"there is no preset {name!r}. Choose from {', '.join(PRESETS)}.") from None
