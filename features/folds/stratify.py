"""Spread traits over folds: iterative stratification, with counts that are kept up to date; or take a share of them."""

from collections.abc import Sequence

import numpy as np

#: Units of which every choice is tried: 65,536 of them; and of which two are exchanged.
_FEW_UNITS, _EXCHANGED = 16, 100
#: What a trait costs that one side lacks, of what is kept and of what is taken: more than any distance from the share.
_LACKING = (1e6, 1e3)


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


def take_share(counts: np.ndarray, share: float, starts: Sequence[np.ndarray], seed: int) -> np.ndarray:
    """Take units that have nearly a share of all rows and of each trait, and leave some of each trait on both sides.

    Of few units every choice is tried. Of more, each start is brought nearer by single units and, of up
    to 100, by pairs; the nearest is taken.

    Args:
        counts: int64 array (U, 1 + T): the rows of each unit, and how many of them have each trait; of each some has.
        share: above 0 and below 1.
        starts: bool arrays (U,), at least one of more than `_FEW_UNITS` units.
        seed: of what is taken where two choices are equally near.

    Returns:
        bool array (U,): what is taken.
    """
    order = np.random.default_rng(seed).permutation(len(counts))
    counts, totals = counts[order], counts.sum(axis=0)
    if len(counts) <= _FEW_UNITS:
        choices = (np.arange(2 ** len(counts))[:, None] >> np.arange(len(counts)) & 1).astype(bool)
        best = choices[_distances(choices @ counts, totals, share).argmin()]
    else:
        nearest = [_come_nearer(start[order], counts, totals, share) for start in starts]
        best, _ = min(nearest, key=lambda one: one[1])
    taken = np.empty_like(best)
    taken[order] = best
    return taken


def _come_nearer(taken: np.ndarray, counts: np.ndarray, totals: np.ndarray, share: float) -> tuple[np.ndarray, float]:
    """Take or put back single units, or exchange two, the best first, while that comes nearer.

    Returns:
        bool array (U,), the choice; and its distance.
    """
    taken = taken.copy()
    sums = counts[taken].sum(axis=0)
    distance = float(_distances(sums[None], totals, share)[0])
    while True:
        moves = np.where(taken, -1, 1)[:, None] * counts
        units = np.arange(len(counts))[:, None]
        if len(counts) <= _EXCHANGED:
            pairs = np.array(np.meshgrid(np.flatnonzero(taken), np.flatnonzero(~taken))).reshape(2, -1).T
            moves = np.concatenate([moves, moves[pairs].sum(axis=1)])
        distances = _distances(sums + moves, totals, share)
        best = int(distances.argmin())
        if distances[best] > distance - 1e-9:
            return taken, distance
        changed = units[best] if best < len(units) else pairs[best - len(units)]
        taken[changed], sums, distance = ~taken[changed], sums + moves[best], float(distances[best])


def _distances(sums: np.ndarray, totals: np.ndarray, share: float) -> np.ndarray:
    """How far choices are from the share: of the rows, squared, and the mean over the traits: float64 (C,).

    It is infinite where all is taken, or nothing.

    Args:
        sums: int64 array (C, 1 + T), what each choice takes.
        totals: int64 array (1 + T,).
        share: that is wanted.
    """
    off = (sums / totals - share) ** 2
    kept, own = _LACKING
    lacking = kept * (sums == totals).sum(axis=1) + own * (sums == 0).sum(axis=1)
    empty = (sums[:, 0] == 0) | (sums[:, 0] == totals[0])
    return np.where(empty, np.inf, lacking + off[:, 0] + off[:, 1:].mean(axis=1))
