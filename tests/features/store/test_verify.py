"""Verifying: every flipped byte is found or does no harm, and every lie of a file is told."""

import errno
import os
import random
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from typer.testing import CliRunner

from features.__main__ import app
from features.common.errors import InputError
from features.store.cache import FeatureCache, Finding, verify_cache
from tests.features.store.caches import RECIPE, digests_of, rows_of, write_cache, write_rows

OPTIONS = (
    "--backbones net --weights imagenet --features last --precision float32 --dtype float32 --views 1 --range "
    "0,65535 --fit squash --orientation stored"
)
IDS = tuple(f"image {number}" for number in range(40))


def damage_of(cache: Path) -> Finding | None:
    """Verify a cache of one file; return its damage."""
    ((_, _, finding),) = verify_cache(FeatureCache(cache))
    return finding


def flip(path: Path, whole: bytes, position: int, mask: int) -> None:
    damaged = bytearray(whole)
    damaged[position] ^= mask
    path.write_bytes(damaged)


def test_a_whole_cache_is_whole(tmp_path):
    write_cache(tmp_path, IDS, "train", "net")
    write_cache(tmp_path, IDS[:7], "test", "net", 9)
    write_rows(
        tmp_path,
        rows_of(digests_of(IDS[:3]), dtype="float16"),
        "test",
        replace(RECIPE, backbone="half", storage="float16"),
    )
    assert list(verify_cache(FeatureCache(tmp_path))) == [
        (tmp_path / "test" / "half.h5", 3, None),
        (tmp_path / "test" / "net.h5", 7, None),
        (tmp_path / "train" / "net.h5", 40, None),
    ]


def test_twenty_random_flips_inside_the_features_are_all_found(tmp_path):
    path = write_cache(tmp_path, [f"image {number}" for number in range(300)], width=256)  # 3 blocks
    with h5py.File(path) as file:
        start, size = file["features"].id.get_offset(), file["features"].nbytes
    whole = path.read_bytes()
    generator = random.Random(20)
    for _ in range(20):
        position = generator.randrange(size)
        flip(path, whole, start + position, 1 << generator.randrange(8))
        first = position // (256 * 4) // 128 * 128
        last = min(first + 127, 299)
        assert damage_of(tmp_path) == Finding(
            f"rows {first} to {last} (images image {first} to image {last}) are not those that were written",
            f"mv {path} {path}.damaged && scripts/extract.sh DATA {OPTIONS} --cache {tmp_path}",
        )


def test_all_damaged_blocks_are_counted(tmp_path):
    path = write_cache(tmp_path, [f"image {number}" for number in range(700)])
    with h5py.File(path, "r+") as file:
        for row in (130, 500, 699):
            file["features"][row, 0, 1] += 1
    damage = damage_of(tmp_path)
    assert damage is not None
    assert damage.reason == (
        "rows 128 to 255 (images image 128 to image 255) are not those that were written; so are 2 other blocks"
    )


def test_a_flip_anywhere_is_found_or_does_no_harm(tmp_path):
    path = write_cache(tmp_path, IDS[:9])
    whole = path.read_bytes()
    file, (ids, matrix) = FeatureCache(tmp_path).open("train", "net"), FeatureCache(tmp_path).read("train", ["net"])
    said = {name: value for name, value in vars(file).items() if not isinstance(value, np.ndarray)}
    generator = random.Random(1)
    unused = 0
    for position in range(0, len(whole), 3):  # all digests, ids and rows: test_cache_file.py and above
        flip(path, whole, position, generator.randrange(1, 256))
        if damage_of(tmp_path) is not None:
            continue
        unused += 1
        cache = FeatureCache(tmp_path)
        again = cache.open("train", "net")
        assert {name: getattr(again, name) for name in said} == said, position
        assert cache.read("train", ["net"])[0] == ids, position
        np.testing.assert_array_equal(cache.read("train", ["net"])[1], matrix)
    assert unused < len(whole) // 12  # space between the datasets


def test_a_file_cut_off_anywhere_is_damaged(tmp_path):
    path = write_cache(tmp_path, IDS)
    whole = path.read_bytes()
    for length in [*range(0, len(whole), 97), len(whole) - 1]:
        path.write_bytes(whole[:length])
        assert damage_of(tmp_path) is not None, length


@pytest.mark.parametrize("content", [b"", b"image,feature\na,1\n", b"\x89HDF\r\n\x1a\n" + bytes(500)])
def test_what_is_no_hdf5_is_damaged(tmp_path, content):
    path = tmp_path / "train" / "net.h5"
    path.parent.mkdir()
    path.write_bytes(content)
    damage = damage_of(tmp_path)
    assert damage is not None
    assert damage.reason
    assert "is damaged" not in damage.reason
    assert "verify" not in damage.reason
    assert damage.remedy == f"mv {path} {path}.damaged && scripts/extract.sh DATA --backbones net --cache {tmp_path}"
    with pytest.raises(InputError, match=f"{path} is damaged .* Run: .venv/bin/python -m features verify {tmp_path}$"):
        FeatureCache(tmp_path).read("train", ["net"])


@pytest.mark.parametrize(("row", "value"), [(2, np.nan), (3, np.inf)])
def test_values_that_are_not_finite_are_named(tmp_path, row, value):
    rows = rows_of(digests_of("abcd"))
    rows.features[row, 0, 1] = value
    write_rows(tmp_path, rows)
    damage = damage_of(tmp_path)
    assert damage is not None
    assert damage.reason == f"the features of image {'abcd'[row]} are not finite"


def test_a_file_that_cannot_be_read_is_not_called_damaged_and_no_command_removes_it(tmp_path, monkeypatch):
    path = write_cache(tmp_path, "abcd")
    original = Path.open

    def refuse(self: Path, *arguments: object) -> object:
        if self == path:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return original(self, *arguments)

    monkeypatch.setattr(Path, "open", refuse)
    fails = "The disk, or the network to it, fails: look at the system's log, then run again."
    finding = Finding(f"cannot be read: Input/output error. {fails} Its features may be whole.", "")
    assert damage_of(tmp_path) == finding
    result = CliRunner().invoke(app, ["verify", str(tmp_path)])
    assert result.exit_code == 2
    assert f"unknown: {path} cannot be read: Input/output error" in result.output
    assert "mv " not in result.output


def test_a_path_with_a_blank_is_quoted_in_the_remedy(tmp_path):
    path = write_cache(tmp_path / "my cache", "abcd")
    path.write_bytes(b"")
    damage = damage_of(tmp_path / "my cache")
    assert damage is not None
    assert damage.remedy == (
        f"mv '{path}' '{path}.damaged' && scripts/extract.sh DATA --backbones net --cache '{path.parents[1]}'"
    )


def test_a_file_under_another_backbones_name_is_told(tmp_path):
    path = write_cache(tmp_path, "abcd")
    path.rename(path.with_name("other.h5"))
    damage = damage_of(tmp_path)
    assert damage is not None
    assert damage.reason == "it holds features of net"


def test_one_damaged_file_does_not_hide_the_others(tmp_path):
    broken = write_cache(tmp_path, "ab", backbone="broken")
    write_cache(tmp_path, "ab", backbone="whole")
    broken.write_bytes(b"")
    assert [(path.stem, rows, damage is None) for path, rows, damage in verify_cache(FeatureCache(tmp_path))] == [
        ("broken", 0, False),
        ("whole", 2, True),
    ]
