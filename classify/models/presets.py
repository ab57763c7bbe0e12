"""Name the heads that are worth a first try."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from classify.models.heads import HeadSpec
from classify.models.preset_files import SUFFIX, read_presets
from features.common.errors import InputError

#: Specs by name. `challenge` is the best model of the challenge's author (behold.ai, 2020); `challenge-sgd` its other
#: optimiser, for which the author gives no learning rate.
#:
#: The other figures are measured, out-of-fold over 5 grouped folds, on features of efficientnet_lite0, 1 and 2 of 355
#: head-CT slices of 26 patients (ich355) and of 600 phantom slices. `linear`: of ten rates from 1e-5 to 0.3, 1e-3 has
#: the least log loss on ich355. `ridge`: on ich355, of 13 mixes of penalties 0.1 and 0.3, rates 3e-4 to 3e-3 and
#: batches of 16 to 256, these have the highest macro AUC, 0.650 (log loss 0.385; three seeds, mean over the backbones
#: and all). At batch 256, rate 3e-3 and penalty 0.3 it is 0.619 (0.394): an epoch is one step there, too few for the
#: moving statistics of the batch normalisation. On the phantom they bring `ridge/all` from 0.903 to 0.924 (one seed).
#: `challenge-sgd`: on efficientnet_lite0 of ich355, two seeds, 3e-3 is the best of seven rates from 1e-5 to 0.03.
#: `wide`, likewise: 3e-4 is the best of five rates from 3e-5 to 3e-3. `deep`, one seed: 1e-3 is the best of five rates
#: from 1e-4 to 0.01.
PRESETS: Mapping[str, HeadSpec] = MappingProxyType(
    {
        "challenge": HeadSpec(),
        "challenge-sgd": HeadSpec(optimiser="sgd", learning_rate=3e-3),
        "linear": HeadSpec(dropout=0.0, l2=1e-4, learning_rate=1e-3, batch_size=256),
        "ridge": HeadSpec(dropout=0.0, l2=0.1, learning_rate=1e-3, batch_size=32),
        "wide": HeadSpec(hidden_units=(512,), learning_rate=3e-4, batch_size=256),
        "deep": HeadSpec(hidden_units=(256, 128, 64), dropout=0.3, learning_rate=1e-3, batch_size=256),
    }
)

#: Those of a run that names none: a linear head and one that is not, which err apart. Against `linear` and the earlier
#: `ridge` they bring the best cross-fitted ensemble on ich355 from 0.669, 0.679 and 0.690 (seeds 0 to 2 of the folds)
#: to 0.723, 0.716 and 0.742, and on the phantom from 0.911 and 0.901 (seeds 0 and 1) to 0.924 and 0.910.
DEFAULT_PRESETS = ("ridge", "deep")


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
