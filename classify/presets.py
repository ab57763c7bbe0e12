"""Name the heads that are worth a first try."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from classify.heads import HeadSpec
from classify.preset_files import SUFFIX, read_presets
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


def choose_heads(choices: Sequence[str], taken: Collection[str]) -> dict[str, HeadSpec]:
    """Collect the heads asked for.

    Args:
        choices: as given to `--preset`: names of `PRESETS`, files that end in `.json`; or `none` alone.
        taken: names that other models have.

    Returns:
        Specs by name, in the order of the choices.

    Raises:
        InputError: a name is not known, is taken or is chosen twice, or a file cannot be read.
    """
    if tuple(choices) == ("none",):
        return {}
    heads: dict[str, HeadSpec] = {}
    for choice in choices:
        if choice not in PRESETS and not choice.endswith(SUFFIX):
            raise InputError(
                f"--preset {','.join(choices)!r}: {choice} is no preset. Expected some of {', '.join(PRESETS)}; a file "
                f"that ends in {SUFFIX}; or none."
            )
        found = {choice: PRESETS[choice]} if choice in PRESETS else read_presets(Path(choice))
        for name in found:
            if name in heads:
                raise InputError(f"--preset {','.join(choices)!r}: {name!r} stands there twice. Name it once.")
            if name in taken:
                raise InputError(f"{choice}: {name!r} is another model's name. Give the preset a name of its own.")
        heads |= found
    return heads
