"""features.store.source: messages print the commands that were really used, whatever the names."""

import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from features.common.errors import InputError
from features.store.cache import FeatureCache, verify_cache
from features.store.source import Source, extract_command, read_source, write_source
from tests import ROOT
from tests.features.store.caches import RECIPE, digests_of, rows_of, write_cache, write_rows
from tests.pasted import NASTY_NAMES, paste

OWN = replace(RECIPE, backbone="tiny", weights="/models/my model.keras")


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def test_what_is_kept_comes_back_and_what_cannot_be_read_is_unknown(tmp_path):
    path = tmp_path / "train" / "net.h5"
    source = Source(Path("/data"), {"id_column": "Image ID", "max_pixels": 5}, RECIPE)
    assert read_source(path) is None
    write_source(path, source)
    assert read_source(path) == source
    (tmp_path / "train" / "net.source.json").write_text("[]")
    assert read_source(path) is None


@pytest.mark.parametrize("name", [name for name in NASTY_NAMES if "/" not in name])
def test_the_remedy_of_a_damaged_file_can_be_pasted(tmp_path, name):
    cache = tmp_path / name
    path = write_cache(cache, "ab", backbone="tiny")
    write_source(path, Source(tmp_path / "data" / name, {"id_column": name}, OWN))
    path.write_bytes(b"")
    ((_, _, finding),) = verify_cache(FeatureCache(cache))
    assert finding is not None
    ((_, data, *options),) = paste(tmp_path, finding.remedy)
    given = dict(zip(options[::2], options[1::2], strict=True))
    assert data == str(tmp_path / "data" / name)
    assert {**given, "--range": ""} == {
        **{"--id-column": name, "--backbone": "tiny=/models/my model.keras", "--features": "last"},
        **{"--precision": "float32", "--views": "1"},
        **{"--dtype": "float32", "--range": "", "--orientation": "stored", "--fit": "squash", "--cache": str(cache)},
    }
    assert not path.exists()
    assert path.with_name("tiny.h5.damaged").exists()


def test_backbones_of_one_source_share_a_command_and_own_models_have_their_own(tmp_path):
    sources = {name: Source(Path("/d"), {"split": "new"}, replace(RECIPE, backbone=name)) for name in ("a", "b")}
    command = extract_command({**sources, "tiny": Source(Path("/d"), {"split": "new"}, OWN)}, tmp_path)
    first, second = command.split(" && ")
    assert shlex.split(first)[:6] == ["scripts/extract.sh", "/d", "--split", "new", "--backbones", "a,b"]
    assert shlex.split(second)[4:6] == ["--backbone", "tiny=/models/my model.keras"]


def test_without_a_source_another_splits_file_tells_the_recipe_and_the_caller_the_data(tmp_path):
    write_cache(tmp_path, "ab", "test")
    damaged = write_cache(tmp_path, "ab", "train")
    damaged.write_bytes(b"")
    command = FeatureCache(tmp_path, Path("./-x")).remedy("net", split="train")
    assert shlex.split(command)[:5] == ["scripts/extract.sh", "./-x", "--backbones", "net", "--weights"]
    (tmp_path / "test" / "net.h5").unlink()
    command = FeatureCache(tmp_path).remedy("net")
    assert shlex.split(command)[1:] == ["DATA", "--backbones", "net", "--cache", str(tmp_path)]


@pytest.mark.parametrize("damage", [b"", None])
def test_rows_that_are_there_tell_the_recipe_before_the_note_of_a_run_that_was_stopped(tmp_path, damage):
    moved, stopped = replace(RECIPE, weights="/new/net.h5"), replace(RECIPE, views=("identity", "hflip"))
    for split, noted in (("test", moved), ("train", stopped)):
        write_source(write_cache(tmp_path, "ab", split), Source(Path("/data"), {}, noted))
    if damage is not None:
        (tmp_path / "train" / "net.h5").write_bytes(damage)
    words = shlex.split(FeatureCache(tmp_path).remedy("net", split="train"))
    given = dict(zip(words[2::2], words[3::2], strict=True))
    assert (given["--views"], given["--weights"]) == ("1", "imagenet" if damage is None else "/new")


def test_a_missing_file_names_the_command_of_its_split(tmp_path):
    write_cache(tmp_path, "ab", "train")
    write_source(tmp_path / "train" / "other.h5", Source(Path("/my data"), {}, replace(RECIPE, backbone="other")))
    with pytest.raises(InputError, match=r"other\.h5 is not there .*\.sh '/my data' --backbones other"):
        FeatureCache(tmp_path).read("train", ["other"])


@pytest.mark.parametrize(
    ("missing", "features", "sizes"),
    [("net.384", "last", ["384"]), ("net.384.mid", "mid", ["384"]), ("net.mid", "mid", []), ("net", "last", [])],
)
@pytest.mark.parametrize("cached", ["net", "net.224.mid"])
def test_missing_rows_are_extracted_as_other_rows_of_their_backbone(tmp_path, missing, features, sizes, cached):
    here = {"views": ("identity", "hflip"), "weights": "/w/net.h5", "storage": "float16"}
    recipe = replace(RECIPE, **here).of_other_rows(cached)
    if missing != cached:
        write_source(tmp_path / "train" / f"{cached}.h5", Source(Path("/data"), {"id_column": "name"}, recipe))
        write_rows(tmp_path, rows_of(digests_of("ab"), 2, dtype="float16"), "train", recipe)
        (words,) = (shlex.split(part) for part in FeatureCache(tmp_path).remedy(missing, split="train").split(" && "))
        given = dict(zip(words[2::2], words[3::2], strict=True))
        assert words[1] == "/data"
        assert [given["--backbones"], given["--features"], given["--views"]] == ["net", features, "hflip"]
        assert [given["--weights"], given["--dtype"], given["--id-column"]] == ["/w", "float16", "name"]
        assert [given[name] for name in ("--sizes",) if name in given] == sizes


def test_missing_rows_of_which_nothing_is_known_are_asked_for_at_their_size(tmp_path):
    wanted = ("a", "b.mid", "b.384", "a.384.mid", "c.32")
    assert FeatureCache(tmp_path).remedy(*wanted).split(" && ") == [
        f"scripts/extract.sh DATA --backbones a,b --cache {tmp_path}",
        f"scripts/extract.sh DATA --backbones b,a --sizes 384 --cache {tmp_path}",
        f"scripts/extract.sh DATA --backbones c --sizes 32 --cache {tmp_path}",
    ]


def test_a_folder_that_is_one_split_is_read_for_that_split_alone(tmp_path):
    for split, backbone, source in (
        ("train", "net", Source(Path("/data"), {"id_column": "name"}, RECIPE)),
        ("extra", "wide", Source(Path("/folder"), {"split": "extra"}, replace(RECIPE, backbone="wide"))),
    ):
        write_source(write_cache(tmp_path, "ab", split, backbone), source)
    cache = FeatureCache(tmp_path)
    start = ["/data", "--id-column", "name", "--backbones", "wide"]
    assert shlex.split(cache.remedy("wide", split="train"))[1:6] == start
    assert shlex.split(cache.remedy("wide"))[1:6] == start
    assert shlex.split(cache.remedy("net", split="extra"))[1:6] == ["/folder", "--split", "extra", "--backbones", "net"]
