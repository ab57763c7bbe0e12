"""Write figures and names as the report shows them."""

import math
import re

#: Stands where there is no figure.
DASH = "\u2013"


def short(value: float | None) -> str:
    """Write a figure with three decimals; a dash where there is none."""
    return DASH if value is None or math.isnan(value) else f"{value:.3f}"


def interval(low: float, high: float) -> str:
    """Write an interval, or nothing where there is none."""
    return "" if math.isnan(low) or math.isnan(high) else f"[{low:.3f}, {high:.3f}]"


def with_interval(score: tuple[float, float, float]) -> str:
    """Write `0.894 [0.858, 0.925]`; without an interval where there is none."""
    return f"{short(score[0])} {interval(score[1], score[2])}".strip()


def percent(share: float) -> str:
    """Write a share of 0 to 1 as `4.0 %`; a dash where there is none."""
    return DASH if math.isnan(share) else f"{100 * share:.1f} %"


def shorten(name: str, characters: int) -> str:
    """Write a name in at most so many characters: of a longer one its two ends, which tell it from its like."""
    if len(name) <= characters:
        return name
    end = (characters - 1) // 2
    return f"{name[: characters - 1 - end]}\u2026{name[-end:]}"


def file_stem(index: int, name: str) -> str:
    """Make a name fit for a file of what a person called something; the index keeps two of them apart."""
    return f"{index + 1}_{re.sub(r'[^A-Za-z0-9]+', '_', name)[:40].strip('_')}".rstrip("_")
