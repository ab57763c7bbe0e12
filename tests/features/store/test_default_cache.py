"""features.store.default_cache: one folder for each data set."""

import pytest

from features.common.errors import InputError
from features.store.default_cache import claim_default_cache, default_cache


def test_the_default_cache_is_named_after_the_data(tmp_path):
    assert default_cache(tmp_path / "ich" / "..") == default_cache(tmp_path)
    assert default_cache(tmp_path / "ich").parts[-3:] == ("features", "cache", "ich")


def test_two_data_sets_of_one_name_do_not_share_a_default_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "features.store.default_cache.__file__", str(tmp_path / "repo" / "features" / "store" / "default_cache.py")
    )
    ours, theirs = tmp_path / "x" / "data", tmp_path / "y" / "data"
    cache = claim_default_cache(ours)
    assert cache == tmp_path / "repo" / "features" / "cache" / "data"
    assert default_cache(ours) == cache
    with pytest.raises(InputError, match=f"{cache} holds the features of {ours}, not of {theirs}. Name another folder"):
        default_cache(theirs)
    (cache / "dataset.txt").unlink()
    assert claim_default_cache(theirs) == cache
