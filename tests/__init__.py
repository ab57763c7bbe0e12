"""The tests; they mirror the rooms."""

from pathlib import Path

#: The repository's root.
ROOT = Path(__file__).parents[1]
