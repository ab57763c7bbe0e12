"""What a person chooses about a run, and which models that makes: light, so that a wrong choice is refused at once."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from classify.ensembles.ensembles import ENSEMBLES
from classify.inputs import Inputs, list_fitted, refuse_tuned
from classify.models.baselines import PRIOR
from classify.models.heads import HeadSpec
from classify.scores.metrics import DEFAULT_RULE, ThresholdRule, check_rule
from classify.scores.prevalence import check_prevalences
from classify.scores.tables.columns import name_subgroups
from features.common.arrays import UNKNOWN
from features.common.errors import InputError
from features.folds.folds import refuse_few

if TYPE_CHECKING:
    from sklearn.base import ClassifierMixin


@dataclass(frozen=True)
class Settings:
    """What a person chooses about a run; see `RunOptions`.

    Attributes:
        baselines: names of `BASELINES`, in their order, and of `estimators`.
        heads: specs by name; no name is a baseline's.
        ensembles: names of `ENSEMBLES`, in their order; only made of several models.
        calibration: a name of `CALIBRATIONS`, applied to the final model; None for none.
        prevalences: by label, what predictive values are for where it is not the label's share of the images.
        exclusive: whether the labels are classes, of which each labelled image has exactly one.
        estimators: baselines of a person's own, unfitted, by name: one is fitted for each label.
    """

    folds: int = 5
    repeats: int = 1
    refit: bool = False
    seed: int = 0
    jobs: int = 1
    baselines: tuple[str, ...] = ("logistic",)
    heads: Mapping[str, HeadSpec] = field(default_factory=dict)
    ensembles: tuple[str, ...] = tuple(ENSEMBLES)
    select: str = "roc_auc"
    calibration: str | None = None
    threshold: ThresholdRule = DEFAULT_RULE
    gap: bool = False
    prevalences: Mapping[str, float] = field(default_factory=dict)
    nested: bool = False
    permutations: int = 0
    exclusive: bool = False
    estimators: "Mapping[str, ClassifierMixin]" = field(default_factory=dict)

    def within_fold(self) -> "Settings":
        """Those of a run on the rows of all folds but one, which chooses a model for that one."""
        return replace(self.once_more(), folds=self.folds - 1)

    def once_more(self) -> "Settings":
        """Those of a run that is made to be compared with this one."""
        return replace(self, repeats=1, refit=False, gap=False, nested=False, permutations=0)


def list_models(settings: Settings, columns: Mapping[str, slice]) -> tuple[list[str], list[str], tuple[str, ...]]:
    """List the models of a run by name: the baselines, such as `logistic/resnet50`; the heads; the ensembles.

    The prior sees no features, so it is one model. It is a floor, not a member of ensembles; a single model makes none.
    """
    baselines = list_fitted([name for name in settings.baselines if name != PRIOR], columns)
    heads = list_fitted(settings.heads, columns)
    ensembles = settings.ensembles if len(baselines) + len(heads) > 1 else ()
    return baselines + [PRIOR] * (PRIOR in settings.baselines), heads, ensembles


def count_steps(settings: Settings, columns: Mapping[str, slice]) -> int:
    """How often `run_experiment` and `validate` call `on_step`."""
    baselines, heads, ensembles = list_models(settings, columns)
    fitted = len(baselines) + len(heads)
    fits = settings.folds * settings.repeats + settings.refit
    steps = fitted * fits + len(ensembles) + (fitted + len(ensembles)) + settings.gap * 2 * fits
    if settings.nested:
        steps += settings.folds * count_steps(settings.within_fold(), columns)
    if settings.permutations:
        steps += settings.permutations * count_steps(settings.once_more(), columns)
    return steps


def choose_exclusive(choice: str, inputs: Inputs) -> tuple[bool, str]:
    """Tell whether the labels are exclusive classes: at least two, of which each labelled image has exactly one.

    Args:
        choice: `auto`, `yes` or `no`.
        inputs: the images with features; a label that is not known makes them not exclusive, but of test images none
            of whose labels is known.

    Returns:
        Whether they are, and a line that says so, or why the labels of test undo what those of train suggest; else "".

    Raises:
        InputError: they are not, but the choice is `yes`; the message names the first image.
    """
    count = len(inputs.label_names)
    labelled = {"train": (inputs.train, inputs.train_labels)}
    if inputs.test is not None and inputs.test.labels is not None:
        own = np.flatnonzero((inputs.test.labels != UNKNOWN).any(axis=1))  # others are predicted alone
        labelled["test"] = inputs.test.take(own), inputs.test.labels[own]
    faults = []
    for split, (images, labels) in labelled.items():
        other = np.flatnonzero((labels == 1).sum(axis=1) + 2 * (labels == UNKNOWN).any(axis=1) != 1)
        if len(other):
            own = labels[other[0]]
            names = [name for name, value in zip(inputs.label_names, own, strict=True) if value == 1]
            what = "a label that is not known" if (own == UNKNOWN).any() else " and ".join(names) or "no label"
            faults.append((split, f"{split} image {images.used_ids[other[0]]} has {what}"))
    alike = f"each labelled image has exactly one of {count} labels"
    if choice == "no":
        return False, ""
    if choice == "yes" and (faults or count < 2):
        why = faults[0][1] if faults else f"there is one label alone, {inputs.label_names[0]}"
        raise InputError(
            f"--exclusive yes: {why}, not exactly one of several. Correct the labels, or use --exclusive no."
        )
    if not faults and count > 1:
        return True, f"classes: {alike}, so they are exclusive (--exclusive no learns each label by itself)"
    if faults and faults[0][0] == "test" and count > 1:
        return (
            False,
            f"labels: not taken as exclusive classes, as {faults[0][1]}, though each train image has exactly one",
        )
    return False, ""


def check_settings(settings: Settings, inputs: Inputs) -> None:
    """Refuse what cannot be done with these inputs.

    Raises:
        InputError: the data are too few for the folds, or have no groups for the gap; `select` names no model, a
            prevalence no label, a head learns exclusive classes where there are none, or a column has too many values
            for subgroups.
    """
    asked = {"gap": settings.gap, "nested": settings.nested, "permutations": settings.permutations}
    for option in [name for name, value in {**asked, "repeats": settings.repeats > 1}.items() if value]:
        refuse_tuned(inputs, f"--{option}")
    check_prevalences(settings.prevalences, inputs.label_names)
    softmax = [name for name, spec in settings.heads.items() if spec.output == "softmax"]
    if softmax and not settings.exclusive:
        raise InputError(
            f"--preset: the output of {softmax[0]} is softmax, which is for exclusive classes; these labels are none. "
            'Give it the output "sigmoid", or none; --exclusive yes says why they are none.'
        )
    for name, cells in inputs.train.columns.items():
        of_test = inputs.test.columns if inputs.test and inputs.test.labels is not None else {}
        name_subgroups(name, {"oof": cells, "test": of_test.get(name, cells[:0])})
    groups = inputs.train.groups
    if settings.gap and (groups is None or len(np.unique(groups)) == len(groups)):
        why = "no groups are known" if groups is None else f"each of the {len(groups)} groups holds one image"
        raise InputError(
            f"--gap compares random folds with grouped ones, but {why}. Use --group-column, --group-from or --groups."
        )
    if settings.nested and settings.folds < 3:
        raise InputError("--nested chooses on the other folds by folds of their own: use --folds 3 or more.")
    check_rule(settings.select, list(chain(*list_models(settings, inputs.columns))), settings.exclusive)
    refuse_few(len(inputs.train_labels), groups, settings.folds)
