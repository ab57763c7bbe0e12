"""All tables of a run's final model together."""

from collections.abc import Sequence
from typing import NamedTuple

from classify.scores.tables.classes import ConfusionFigure
from classify.scores.tables.groups import GroupFigure
from classify.scores.tables.operating_points import OperatingFigure
from classify.scores.tables.subgroups import SubgroupFigure
from classify.scores.thresholds import Promise


class Readings(NamedTuple):
    """What the final model's predictions say beside their scores; empty where there is nothing.

    Attributes:
        promises: what its thresholds rest on, by label, where a sensitivity was to be promised.
        operating_points, groups, subgroups, confusions: rows of tables.
    """

    promises: Sequence[Promise] = ()
    operating_points: Sequence[OperatingFigure] = ()
    groups: Sequence[GroupFigure] = ()
    subgroups: Sequence[SubgroupFigure] = ()
    confusions: Sequence[ConfusionFigure] = ()
