"""Take the groups of scans from what stage 1 saw of them, where the data set gives none, or others cut them."""

import logging
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from features.common.text import count_things
from features.dataset.dataset import Dataset
from features.store.images_table import FactsTable

logger = logging.getLogger(__name__)


def with_scan_groups(dataset: Dataset, root: Path) -> tuple[Dataset, str]:
    """Give the images of a data set without groups those of their scans: the patient, or else the study or volume.

    An image that names nobody, such as a PNG, is a group of its own, unless most are such. Groups that were guessed
    from ids give way where they cut a patient of the scans; of others that do, a warning is logged.

    Args:
        dataset: the data set.
        root: folder of the cache.

    Returns:
        The data set, with groups in all splits or none, and what to say of it; "" where it keeps its groups, or has no
        scans.
    """
    tables = {table.path.parent.name: table for table in FactsTable.of_cache(root)}
    groups: dict[str, np.ndarray] = {}
    known, alone = set[str](), list[str]()
    for name, split in dataset.splits.items():
        found = [""] * len(split.image_ids)
        for stored, rows in split.parts():
            table, image_ids = tables.get(stored), split.image_ids
            for row in rows.tolist():
                if table and image_ids[row] in table:
                    group = table.group(image_ids[row])
                    found[row] = group or f"{stored}/{image_ids[row]}"
                    if group:
                        known.add(group)
                    else:
                        alone.append(found[row])
        groups[name] = np.array(found, np.str_)
    seen = sum(int((of_split != "").sum()) for of_split in groups.values())
    tell_apart = len(known) + len(alone) > 1 and 2 * len(alone) <= seen  # else they are anonymous, or mostly no scans
    cut = _find_cut(dataset, groups, known) if tell_apart else {}
    if cut and not dataset.groups_guessed:
        logger.warning(
            "%s: by the headers of the scans, %s (patient, or else study or volume) in several groups (%s), such as "
            "%s: folds may cut them. Give other groups: --groups FILE",
            dataset.root,
            count_things(len(cut), "owner"),
            dataset.groups_from,
            " and ".join(next(iter(cut.values()))),
        )
    has_groups = any(split.groups is not None for split in dataset.splits.values())
    if not known or (has_groups and not (cut and dataset.groups_guessed)):
        return dataset, ""
    if not tell_apart:
        why = f"{len(alone):,} of {seen:,} images have none" if alone else "all images have the same one"
        return (
            dataset,
            f"groups: none; of the patient ids of the scans, {why}. Give --groups, --group-column or --group-from",
        )
    splits = {name: replace(split, groups=groups[name]) for name, split in dataset.splits.items()}
    said = f"groups: the patient (or else the study or volume) of the scans, hashed ({len(known):,} groups)"
    if cut:
        said += f"; those from the ids would cut {len(cut):,} of them"
    if alone:
        said += f"; {count_things(len(alone), 'image')} without one, each a group of its own (first: {alone[0]})"
    return replace(dataset, splits=splits, groups_from="the patient of the scans"), said


def _find_cut(dataset: Dataset, owners: Mapping[str, np.ndarray], known: Collection[str]) -> dict[str, list[str]]:
    """Find the owners of scans whose images lie in several groups of the data set, by owner: these groups, sorted.

    Args:
        dataset: the data set.
        owners: str (N,) by split, "" where none is known.
        known: owners that several images may have.
    """
    lie: dict[str, set[str]] = {}
    for name, split in dataset.splits.items():
        if split.groups is not None:
            for owner, group in zip(owners[name].tolist(), split.groups.tolist(), strict=True):
                if owner in known:
                    lie.setdefault(owner, set()).add(group)
    return {owner: sorted(own) for owner, own in lie.items() if len(own) > 1}
