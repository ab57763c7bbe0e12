"""What is compiled is kept where it can be, and never read again once a source of the bank is another."""

import logging
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from numba import config

from classify.bank import compiled as module
from classify.bank.compiled import SOURCES, cache_folder, compiled


def double(numbers):
    return 2 * numbers


@pytest.fixture(autouse=True)
def given(tmp_path, monkeypatch):
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path / "kept"))
    return tmp_path / "kept"


def test_code_is_kept_below_the_folder_that_is_given(given):
    assert compiled(double)(np.float32(3)) == 6
    kept = [path.relative_to(given) for path in given.rglob("*.nbi")]
    assert [path.parts[0] for path in kept] == [cache_folder().name]
    assert str(given) == config.CACHE_DIR


def test_another_source_has_another_folder(tmp_path, monkeypatch):
    before = cache_folder()
    shutil.copytree(Path(module.__file__).parent, tmp_path / "bank", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(module, "_BANK", tmp_path / "bank")
    assert cache_folder() == before
    (tmp_path / "bank" / "hidden.py").write_text("changed")
    assert cache_folder() != before


def test_every_module_that_is_compiled_is_a_source():
    bank = Path(module.__file__).parent
    names = {
        path.stem: set(re.findall(r"from classify\.bank\.(\w+) import", path.read_text())) for path in bank.glob("*.py")
    }
    takes = {name for name, imported in names.items() if "compiled" in imported}
    assert takes | set().union(*(names[name] for name in takes)) == set(SOURCES)


def test_it_is_beside_the_sources_or_in_the_users_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(config, "CACHE_DIR", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "of_user"))
    beside = Path(module.__file__).parent / "__pycache__"
    assert cache_folder().parent == beside
    monkeypatch.setattr(module.os, "access", lambda folder, mode: not beside.is_relative_to(folder))
    assert cache_folder().parent == tmp_path / "of_user" / "headbank"


def test_what_cannot_be_kept_is_compiled_all_the_same(given, monkeypatch, caplog):
    monkeypatch.setattr(module.os, "access", lambda folder, mode: False)
    with caplog.at_level(logging.WARNING):
        assert compiled(double)(np.float32(3)) == 6
    assert caplog.messages == ["double is compiled in every run: set NUMBA_CACHE_DIR to a folder to keep it in"]
    assert not given.exists()
