"""Spread traits over folds: iterative stratification, with counts that are kept up to date."""

import numpy as np


def stratify(traits: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Split units so that every trait is spread evenly (Sechidis et al. 2011, algorithm 1).

    Trait by trait, the rarest of the units that are left first, each unit that has it goes to the fold that lacks most
    of the trait; of several to the one that lacks most units; of several to any. The folds are those of the package
    iterative-stratification with `shuffle`, which counts all traits of all units again for each trait.

    Args:
        traits: bool array (U, T).
        count: of the folds.
        seed: 0 to 2**32 - 1.

    Returns:
        int64 array (U,): the fold of each unit.
    """
    random = np.random.RandomState(seed)
    order = np.arange(len(traits))
    random.shuffle(order)
    shuffled = traits[order]
    left, waiting = shuffled.sum(axis=0), np.ones(len(traits), bool)
    wanted = [1 / count * len(traits)] * count
    of_traits = [[1 / count * units] * count for units in left.tolist()]
    traits_of_place = [np.flatnonzero(own).tolist() for own in shuffled]
    fold_of_place = np.zeros(len(traits), np.int64)

    def put(place: int, lacks: list[float]) -> None:
        lacking = list(zip(lacks, wanted, strict=True))
        most = max(lacking)
        folds = [fold for fold, pair in enumerate(lacking) if pair == most]
        fold = folds[random.randint(len(folds))] if len(folds) > 1 else folds[0]
        fold_of_place[place] = fold
        for trait in traits_of_place[place]:
            of_traits[trait][fold] -= 1
        wanted[fold] -= 1

    while left.any():
        rarest = np.flatnonzero(left == left[left > 0].min())
        trait = int(rarest[random.choice(len(rarest))] if len(rarest) > 1 else rarest[0])
        places = np.flatnonzero(shuffled[:, trait] & waiting)
        for place in places.tolist():
            put(place, of_traits[trait])
        waiting[places] = False
        left = left - shuffled[places].sum(axis=0)
    for place in np.flatnonzero(waiting).tolist():
        put(place, wanted)
    fold_of_unit = np.empty_like(fold_of_place)
    fold_of_unit[order] = fold_of_place
    return fold_of_unit
