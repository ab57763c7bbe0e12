"""What a room offers to be typed in Python: loaded when it is first asked for, so that importing a room is quick."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def load_lazily(room: str, modules: Mapping[str, str]) -> Callable[[str], Any]:
    """Make the `__getattr__` of a room (PEP 562).

    Args:
        room: its name.
        modules: by name of what it offers, the module that holds it.
    """

    def load(name: str) -> Any:
        if name in modules:
            return getattr(import_module(modules[name]), name)
        raise AttributeError(f"module {room!r} has no attribute {name!r}")

    return load
