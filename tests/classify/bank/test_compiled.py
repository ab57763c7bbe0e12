"""What is compiled is kept where it can be, read only while its sources are the same, and made again if damaged."""

import logging
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from numba import config

from classify.bank import compiled as module
from classify.bank.compiled import SOURCES, compiled, is_compiled, kept_folder


def double(numbers):
    return 2 * numbers


@pytest.fixture(autouse=True)
def given(tmp_path, monkeypatch):
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path / "kept"))
    kept_folder.cache_clear()
    yield tmp_path / "kept"
    kept_folder.cache_clear()


def test_code_is_kept_below_the_folder_that_is_given_and_read_again(given):
    assert not is_compiled()
    assert compiled(double)(np.float32(3)) == 6
    assert is_compiled()
    kept = [path.relative_to(given).parts[0] for path in given.rglob("*.nbi")]
    assert kept == [kept_folder().name]
    again = compiled(double)
    assert again(np.float32(3)) == 6
    assert sum(again.stats.cache_hits.values()) == 1


def test_another_source_has_another_folder(tmp_path, monkeypatch):
    before = kept_folder()
    room = Path(module.__file__).parents[1]
    for package in ("bank", "models"):
        shutil.copytree(room / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(module, "_ROOM", tmp_path)
    kept_folder.cache_clear()
    assert kept_folder() == before
    with (tmp_path / "bank" / "hidden.py").open("a") as file:
        file.write("# changed")
    kept_folder.cache_clear()
    assert kept_folder() != before


def test_every_module_that_is_compiled_is_a_source():
    room = Path(module.__file__).parents[1]
    imports = re.compile(r"from classify\.(\w+)\.(\w+) import")

    def takes(name):
        return {"/".join(found) for found in imports.findall((room / f"{name}.py").read_text())}

    found = {f"bank/{path.stem}" for path in room.glob("bank/*.py") if "bank/compiled" in takes(f"bank/{path.stem}")}
    found -= {"bank/train"}  # asks whether there is compiled code
    while more := set().union(*map(takes, found - {"models/trained_head"})) - found:
        found |= more
    assert found == set(SOURCES)


def test_it_is_beside_the_sources_or_in_the_users_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(config, "CACHE_DIR", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "of_user"))
    kept_folder.cache_clear()
    beside = Path(module.__file__).parent / "__pycache__"
    assert kept_folder().parent == beside
    monkeypatch.setattr(module, "_ROOM", tmp_path / "room")
    for name in SOURCES:
        (tmp_path / "room" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "room" / f"{name}.py").touch()
    (tmp_path / "room" / "bank" / "__pycache__").touch()  # a file: no folder can be made in it
    kept_folder.cache_clear()
    assert kept_folder().parent == tmp_path / "of_user" / "headbank"


def test_without_a_place_it_is_compiled_all_the_same_which_is_said(given, caplog):
    given.touch()
    with caplog.at_level(logging.WARNING):
        assert compiled(double)(np.float32(3)) == 6
        assert not is_compiled()
    (said,) = caplog.messages
    assert f"{given} cannot be written. Set NUMBA_CACHE_DIR" in said


@pytest.mark.parametrize("suffix", ["nbi", "nbc"])
@pytest.mark.parametrize("content", [b"", b"garbage"])
def test_damaged_code_is_compiled_again(given, caplog, suffix, content):
    compiled(double)(np.float32(3))
    (path,) = given.rglob(f"*.{suffix}")
    path.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert compiled(double)(np.float32(3)) == 6
    assert caplog.messages == [f"{kept_folder()} is damaged: what it holds is compiled again"]
    again = compiled(double)
    assert again(np.float32(3)) == 6
    assert sum(again.stats.cache_hits.values()) == 1


def test_a_full_disk_is_said(given, caplog, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("numba.core.caching.IndexDataCacheFile.save", fail)
    with caplog.at_level(logging.WARNING):
        assert compiled(double)(np.float32(3)) == 6
    assert caplog.messages == [f"{kept_folder()} keeps no compiled code (No space left on device)"]


def test_no_home_is_needed(monkeypatch):
    def fail():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(config, "CACHE_DIR", "")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", fail)
    kept_folder.cache_clear()
    assert kept_folder().parent == Path(module.__file__).parent / "__pycache__"
