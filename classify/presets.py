"""Name the heads that are worth a first try."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from classify.heads import HeadSpec
from classify.preset_files import SUFFIX, read_presets
from features.errors import InputError

#: Specs by name. `challenge` is the best model of the challenge's author (behold.ai, 2020); `challenge-sgd` its other
#: optimiser, for which the author gives no learning rate.
#:
#: The other figures are measured: 355 head-CT slices of 26 patients (ich355), features of efficientnet_lite0, 1 and 2,
#: out-of-fold over 5 grouped folds. `linear`: of ten rates from 1e-5 to 0.3, 1e-3 has the least log loss, 0.423 (mean
#: over the three backbones and all, and three seeds of the folds; macro AUC 0.630). `ridge`: of penalties from 1e-4 to
#: 1 and rates from 3e-4 to 3e-3, these have the highest macro AUC, 0.713, at a log loss of 0.374 (one seed, at which
#: `linear` has 0.656 and 0.407). `challenge-sgd`: on efficientnet_lite0 alone, two seeds, 3e-3 is the best of seven
#: rates from 1e-5 to 0.03 by both, 0.676 and 0.499. `wide`, likewise: 3e-4 is the best of five rates from 3e-5 to 3e-3
#: by both, 0.728 and 0.412 (1e-3: 0.696 and 0.468). `deep`, one seed: 1e-3 is the best of five rates from 1e-4 to 0.01,
#: 0.775 and 0.388.
PRESETS: Mapping[str, HeadSpec] = MappingProxyType(
    {
        "challenge": HeadSpec(),
        "challenge-sgd": HeadSpec(optimiser="sgd", learning_rate=3e-3),
        "linear": HeadSpec(dropout=0.0, l2=1e-4, learning_rate=1e-3, batch_size=256),
        "ridge": HeadSpec(dropout=0.0, l2=0.3, learning_rate=3e-3, batch_size=256),
        "wide": HeadSpec(hidden_units=(512,), learning_rate=3e-4, batch_size=256),
        "deep": HeadSpec(hidden_units=(256, 128, 64), dropout=0.3, learning_rate=1e-3, batch_size=256),
    }
)

#: Those of a run that names none: a weak and a strong penalty. Linear heads of one batch size are one stack of the
#: bank, so the second asks for no compilation and no matrix product of its own.
DEFAULT_PRESETS = ("linear", "ridge")


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
