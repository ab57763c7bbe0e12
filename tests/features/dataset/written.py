"""Write small data sets, and catch what reading them says."""

from pathlib import Path

import pytest

from features.common.errors import InputError
from features.dataset.dataset import read_dataset, read_images
from features.options import DatasetOptions, ImageOptions


def make(
    root: Path, train_csv: str | bytes | None = None, test_csv: str | bytes | None = None, /, **images: str
) -> Path:
    """Write a data set: CSV texts, and the images of each split as names with blanks between."""
    for split, names in images.items():
        (root / split).mkdir(parents=True, exist_ok=True)
        for name in names.split():
            path = root / split / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    for split, content in (("train", train_csv), ("test", test_csv)):
        if content is not None:
            (root / f"{split}.csv").write_bytes(content.encode() if isinstance(content, str) else content)
    return root


def message_of(root: Path, **options: object) -> str:
    """Give the message of the error that reading the data set raises."""
    with pytest.raises(InputError) as caught:
        read_dataset(root, DatasetOptions(**options))  # type: ignore[arg-type]
    return str(caught.value)


def assert_says(message: str, *parts: object) -> None:
    """Assert that a message holds each of these parts."""
    for part in parts:
        assert str(part) in message


def images_message_of(root: Path, id_column: str | None = None) -> str:
    """Give the message of the error that reading only ids and images raises."""
    with pytest.raises(InputError) as caught:
        read_images(root, ImageOptions(id_column=id_column))
    return str(caught.value)
