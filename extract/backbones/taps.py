"""The maps inside a backbone that are its mid-level features: found by name or by shape."""

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras

#: What ends a block: a sum with what entered it, or its branches side by side.
_MERGES = ("Add", "Concatenate")
#: What changes the size of a map without another resolution.
_FRAMES = ("ZeroPadding2D", "Cropping2D")
#: `Add[10]`: the eleventh operation of that class.
_NUMBERED = re.compile(r"(\w+)\[(\d+)\]")


def find_layer(model: "keras.Model", name: str) -> Any:
    """Find an operation of a functional model that gives one map (B, H, W, C).

    Args:
        model: in which each layer runs once.
        name: of a layer; or `Add[10]`, the eleventh operation of a class, for those that Keras numbers as it goes.

    Returns:
        The layer or operation; None where the model has none of that name that gives a map.
    """
    if numbered := _NUMBERED.fullmatch(name):
        of_class = [operation for operation in model.operations if type(operation).__name__ == numbered[1]]
        found = of_class[int(numbered[2]) :][:1]
    else:
        found = [operation for operation in model.operations if operation.name == name]
    return next((operation for operation in found if _side(operation)), None)


def find_taps(model: "keras.Model") -> tuple[str, ...]:
    """Find the last output of a block at each of the two coarsest resolutions, the finer one first.

    A block's output is a sum or a concatenation; at a resolution without one it is the last map. Maps of one position
    are none: squeeze-and-excitation makes those.

    Returns:
        Names as `find_layer` takes them; () where the model has no maps of two resolutions.
    """
    by_side: dict[int, list[Any]] = {}
    for operation in (found for found in model.operations if type(found).__name__ not in _FRAMES):
        if side := _side(operation):
            by_side.setdefault(side, []).append(operation)
    if len(by_side) < 2:
        return ()
    coarsest = [by_side[side] for side in sorted(by_side)[1::-1]]
    merges = [[operation for operation in maps if type(operation).__name__ in _MERGES] for maps in coarsest]
    return tuple((ends or maps)[-1].name for ends, maps in zip(merges, coarsest, strict=True))


def _side(operation: Any) -> int | None:
    """Height of the square map (B, H, H, C) that an operation gives; None where it gives anything else."""
    try:
        shape = operation.output.shape
    except (AttributeError, ValueError):  # Keras: it has no output, or several
        return None
    square = len(shape) == 4 and None not in shape[1:] and shape[1] == shape[2] > 1
    return int(shape[1]) if square and operation.__class__.__name__ != "InputLayer" else None
