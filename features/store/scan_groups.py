"""Take the groups of scans from what stage 1 saw of them, where the data set gives none."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from features.dataset.dataset import Dataset
from features.store.images_table import FactsTable


def with_scan_groups(dataset: Dataset, root: Path) -> tuple[Dataset, str]:
    """Give the images of a data set without groups those of their scans: the patient, or else the study or volume.

    Args:
        dataset: the data set.
        root: folder of the cache.

    Returns:
        The data set, with groups in all splits or none, and what to say of it; "" where it has groups, or no scans.
    """
    if any(split.groups is not None for split in dataset.splits.values()):
        return dataset, ""
    tables = {table.path.parent.name: table for table in FactsTable.of_cache(root)}
    groups: dict[str, np.ndarray] = {}
    missing = 0
    for name, split in dataset.splits.items():
        found = [""] * len(split.image_ids)
        for stored, rows in split.parts():
            table = tables.get(stored)
            for row in rows.tolist():
                if table is not None and split.image_ids[row] in table:
                    found[row] = table[split.image_ids[row]].group
                    missing += not found[row]
        groups[name] = np.array(found, np.str_)
    known = {group for of_split in groups.values() for group in of_split.tolist() if group}
    if not known:
        return dataset, ""
    if missing or len(known) == 1:
        why = f"{missing:,} images have none" if missing else "all images have the same one"
        return dataset, f"groups: none; of the patient ids of the scans, {why}. Give --groups or --group-column"
    splits = {name: replace(split, groups=groups[name]) for name, split in dataset.splits.items()}
    said = f"groups: the patient (or else the study or volume) of the scans, hashed ({len(known):,} groups)"
    return replace(dataset, splits=splits, groups_from="the patient of the scans"), said
