"""The blocks of a backbone by name, and where it is cut before the first one that is trained."""

import re
from typing import TYPE_CHECKING, Any

from extract.backbones.folding import list_sources
from features.common.errors import InputError

if TYPE_CHECKING:
    import keras

#: `block14` of `block14_add`, `conv5_block3` of `conv5_block3_out`, `block7a` of `block7a_se_squeeze`.
_BLOCK = re.compile(r"(.*?block_?\d+[a-z]?)(?:_|$)")
#: What ends a block of Inception, whose other layers Keras numbers as it goes.
_MIXED = re.compile(r"mixed\d+(?:_\d+)?")
_NUMBERED = re.compile(r"(?:\w+_)?(?:conv2d|batch_normalization|normalization|rescaling|dense)(?:_\d+)?")


def list_blocks(model: "keras.Model") -> list[str]:
    """List the blocks of a functional model that have weights, from its input on; and single layers between them."""
    names = _name_layers(model)
    with_weights = {layer.name for layer in model.layers if layer.weights}
    return list(dict.fromkeys(block for layer, block in names.items() if block and layer in with_weights))


def find_cut(model: "keras.Model", unfreeze: str) -> Any:
    """Find the last operation before the first of some blocks through which all goes that reaches them.

    Args:
        model: a functional model in which each layer runs once.
        unfreeze: names of blocks, `block14,block15`.

    Returns:
        The operation; its output is one tensor, which all that follows depends on alone.

    Raises:
        InputError: the model has no such block; the message lists those that it has.
    """
    wanted = [name.strip() for name in unfreeze.split(",")]
    if unknown := [name for name in wanted if name not in list_blocks(model)]:
        raise InputError(
            f"--unfreeze {unfreeze}: the backbone has no block {unknown[0]!r}. From its input on it has: "
            f"{', '.join(list_blocks(model))}. Name the first one that is to be trained."
        )
    names = _name_layers(model)
    first = min(place for place, block in enumerate(names.values()) if block in wanted)
    return model.operations[max(place for place in _passages(model) if place < max(first, 1))]


def _name_layers(model: "keras.Model") -> dict[str, str]:
    """Name the block of each operation, in their order; "" where it belongs to none."""
    names = [operation.name for operation in model.operations]
    of_inception = any(map(_MIXED.fullmatch, names))
    blocks, following = {}, ""
    for name in reversed(names):
        if of_inception:
            following = name if _MIXED.fullmatch(name) else following
            blocks[name] = following
        else:
            found = _BLOCK.match(name)
            blocks[name] = found[1] if found else "" if _NUMBERED.fullmatch(name) else name
    return {name: blocks[name] for name in names}


def _passages(model: "keras.Model") -> list[int]:
    """List the places of operations after which nothing reads what came before them, in ascending order."""
    layers = model.get_config()["layers"]
    place_of = {layer["name"]: place for place, layer in enumerate(layers)}
    last_read = [0] * len(layers)
    for place, layer in enumerate(layers):
        for source in list_sources(layer["inbound_nodes"]):
            last_read[place_of[source]] = max(last_read[place_of[source]], place)
    passages, reach = [], 0
    for place, last in enumerate(last_read):
        if reach <= place:
            passages.append(place)
        reach = max(reach, last)
    return passages
