"""Finished fits come back bit for bit, and a fit of anything else is never found."""

import ast
import errno
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

import classify
from classify.bank import train as bank
from classify.crossfit.models import Candidate, CrossFit, CrossFitted
from classify.crossfit.plan import FitPlan
from classify.crossfit.store import DECIDING, KEEP_NONE, FitKeys, FitStore, describe_reuse
from classify.inputs import Inputs, SplitInputs
from classify.models.baselines import BASELINES
from classify.models.estimators import OneVsRest
from classify.models.heads import HeadSpec
from classify.scores.scoring import SCORING
from features.folds.folds import Folds
from tests.classify.toy import head_candidates

ROOM = Path(classify.__file__).parent
#: What the fits import that does not decide them: what inputs and the table of baselines hold is part of the digest.
NOT_DECIDING = {"inputs", "models.baselines"}
QUICK = HeadSpec(learning_rate=1e-2, batch_size=20, epochs=3)
SPECS = {"quick": QUICK, "deep": replace(QUICK, hidden_units=(4, 3), batch_norm=False, dropout=0.0, patience=2)}
ROWS = 60
ALPHA, BETA = slice(0, 4), slice(4, 8)
#: Trees: as many as a run has take seconds, and prove no more.
FEWER = {"forest": {"classifier__n_estimators": 20}, "boosting": {"classifier__max_iter": 20}}


def split_inputs(features: np.ndarray, groups: np.ndarray | None = None) -> SplitInputs:
    ids = tuple(f"i{row}" for row in range(len(features)))
    return SplitInputs(ids, np.ones(len(ids), bool), features.astype(np.float32), None, groups, {})


def make_inputs() -> Inputs:
    rng = np.random.default_rng(0)
    features, test = rng.normal(size=(ROWS, 8)), rng.normal(size=(7, 8))
    labels = (features[:, [0, 5]] + rng.normal(size=(ROWS, 2)) > 0).astype(np.uint8)
    labels[:, 1] &= np.arange(ROWS) % 3 == 0  # few positives: some classifiers give up and keep a constant
    groups = np.repeat([f"p{number}" for number in range(ROWS // 2)], 2)
    return Inputs(
        ("a", "b"), {"alpha": ALPHA, "beta": BETA}, split_inputs(features, groups), labels, split_inputs(test)
    )


FOLDS = Folds(np.arange(ROWS) // 2 % 2, 2, None, ())
INPUTS = make_inputs()
#: One backbone: of heads, every other width is traced again.
LONE = replace(INPUTS, columns={"alpha": slice(0, 8)})


PLAN = FitPlan((FOLDS,))


def plan_of(rows: int, count: int) -> FitPlan:
    """Folds of so many rows in turn."""
    return FitPlan((Folds(np.arange(ROWS) // rows % count, count, None, ()),))


def store_in(folder: Path, limit: int = 10**9) -> FitStore:
    return FitStore(folder, limit)


def fit_logistic(
    store: FitStore, inputs: Inputs = INPUTS, columns: slice = ALPHA, C: float = 0.001, plan: FitPlan = PLAN
) -> CrossFitted:
    candidates = {"logistic": Candidate(OneVsRest(LogisticRegression(C=C)), columns)}
    return CrossFit(candidates, inputs, plan, 0, store, FitKeys(inputs)).run(1)


def train_heads(store: FitStore, specs: dict[str, HeadSpec], inputs: Inputs = LONE, seed: int = 0) -> CrossFitted:
    return CrossFit(head_candidates(specs, inputs), inputs, PLAN, seed, store, FitKeys(inputs)).run(1)


def assert_same(first: CrossFitted, second: CrossFitted) -> None:
    assert list(first.predictions) == list(second.predictions)
    for name, one in first.predictions.items():
        other = second.predictions[name]
        np.testing.assert_array_equal(one.out_of_fold, other.out_of_fold)
        assert one.out_of_fold.dtype == other.out_of_fold.dtype == np.float32
        assert one.test is not None
        assert other.test is not None
        np.testing.assert_array_equal(one.test, other.test)
        assert (one.converged, one.seconds, one.backbones) == (other.converged, other.seconds, other.backbones)


def fail(*_: object, **__: object) -> None:
    raise AssertionError("it is fitted again")


@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_of_every_kind_comes_back_bit_for_bit(tmp_path, monkeypatch, name):
    estimator = BASELINES[name].make()
    estimator.set_params(**FEWER.get(name, {}))
    candidates = {name: Candidate(estimator, ALPHA)}
    first = CrossFit(candidates, INPUTS, PLAN, 0, store_in(tmp_path), FitKeys(INPUTS)).run(2)
    monkeypatch.setattr(type(estimator), "fit", fail)
    ticks: list[int] = []
    second = CrossFit(candidates, INPUTS, PLAN, 0, store_in(tmp_path), FitKeys(INPUTS)).run(2, lambda: ticks.append(1))
    assert_same(first, second)
    assert len(ticks) == 2
    for one, other in zip(first.models[name], second.models[name], strict=True):
        expected = one.predict_proba(INPUTS.train.features[:, ALPHA])
        np.testing.assert_array_equal(other.predict_proba(INPUTS.train.features[:, ALPHA]), expected)


def test_heads_come_back_bit_for_bit_with_all_that_they_know(tmp_path, monkeypatch):
    first = train_heads(store_in(tmp_path), SPECS)
    monkeypatch.setattr(bank, "train_bank", fail)
    ticks: list[int] = []
    cross_fit = CrossFit(head_candidates(SPECS, LONE), LONE, PLAN, 0, store_in(tmp_path), FitKeys(LONE))
    second = cross_fit.run(1, lambda: ticks.append(1))
    assert_same(first, second)
    assert len(ticks) == 2 * 2
    assert first.warnings == second.warnings
    for name, heads in first.models.items():
        for one, other in zip(heads, second.models[name], strict=True):
            assert (one.spec, one.best_epoch, one.seconds) == (other.spec, other.best_epoch, other.seconds)
            assert repr(one.spec) == repr(other.spec)  # a list is no tuple, 1 is not 1.0
            assert len(one.weights) == len(other.weights)
            for weight, same in zip(one.weights, other.weights, strict=True):
                np.testing.assert_array_equal(weight, same)
                assert same.dtype == np.float32
            for curve, values in asdict(one.curves).items():
                np.testing.assert_array_equal(values, getattr(other.curves, curve))


def _changed(array: np.ndarray) -> np.ndarray:
    """The array, one value of it changed by as little as can be."""
    changed = array.copy()
    first = changed[0, 0]
    changed[0, 0] = 1 - first if changed.dtype == np.uint8 else np.nextafter(first, np.float32(9))
    return changed


TRAIN, TEST = INPUTS.train, INPUTS.test
assert TEST is not None
OTHER_INPUTS = {
    "features": replace(INPUTS, train=replace(TRAIN, features=_changed(np.asarray(TRAIN.features)))),
    "labels": replace(INPUTS, train_labels=_changed(INPUTS.train_labels)),
    "groups": replace(INPUTS, train=replace(TRAIN, groups=np.roll(np.asarray(TRAIN.groups), 1))),
    "no groups": replace(INPUTS, train=replace(TRAIN, groups=None)),
    "test features": replace(INPUTS, test=replace(TEST, features=_changed(np.asarray(TEST.features)))),
    "no test": replace(INPUTS, test=None),
}


@pytest.mark.parametrize("what", OTHER_INPUTS)
def test_other_inputs_are_other_fits(tmp_path, what):
    fit_logistic(store_in(tmp_path))
    other = OTHER_INPUTS[what]
    found = fit_logistic(store_in(tmp_path), other)
    assert len(list(tmp_path.iterdir())) == 4
    expected = fit_logistic(KEEP_NONE, other)
    np.testing.assert_array_equal(
        found.predictions["logistic"].out_of_fold, expected.predictions["logistic"].out_of_fold
    )


OTHER_FITS: dict[str, Callable[[Path], CrossFitted]] = {
    "columns": lambda folder: fit_logistic(store_in(folder), columns=BETA),
    "parameter": lambda folder: fit_logistic(store_in(folder), C=0.002),
    "estimator": lambda folder: CrossFit(
        {"prior": Candidate(BASELINES["prior"].make(), ALPHA)}, INPUTS, PLAN, 0, store_in(folder), FitKeys(INPUTS)
    ).run(1),
    "fold count": lambda folder: fit_logistic(store_in(folder), plan=plan_of(2, 3)),
    "fold rows": lambda folder: fit_logistic(store_in(folder), plan=plan_of(4, 2)),
    "refit": lambda folder: fit_logistic(store_in(folder), plan=FitPlan((FOLDS,), refit=True)),
}


@pytest.mark.parametrize("what", OTHER_FITS)
def test_other_choices_are_other_fits(tmp_path, what):
    fit_logistic(store_in(tmp_path))
    before = len(list(tmp_path.iterdir()))
    found = OTHER_FITS[what](tmp_path)
    (fitted,) = found.models.values()
    assert len(list(tmp_path.iterdir())) == before + len(fitted)


def test_other_specs_and_seeds_are_other_heads(tmp_path, monkeypatch):
    trained = []

    def watch(specs, X, y, split, seed, **options):
        trained.append((specs, seed))
        return train_bank(specs, X, y, split, seed, **options)

    train_bank = bank.train_bank
    monkeypatch.setattr(bank, "train_bank", watch)
    for specs, seed in (
        ({"quick": QUICK}, 0),
        ({"quick": QUICK}, 1),
        ({"quick": replace(QUICK, l2=2e-4)}, 0),
        ({"quick": replace(QUICK, seed=1)}, 0),
    ):
        trained.clear()
        train_heads(store_in(tmp_path), specs, seed=seed)
        assert trained == [(list(specs.values()), seed)] * 2
    trained.clear()
    other = replace(QUICK, learning_rate=2e-2)
    train_heads(store_in(tmp_path), {"renamed": QUICK, "other": other})
    assert trained == [([other], 0)] * 2
    trained.clear()
    # One group to learn from: whatever the seed, the validation rows are the same. The mini-batches are not.
    whole = replace(LONE, train=replace(TRAIN, groups=np.array(["p", "q"])[FOLDS.fold_of_row]))
    for seed in (0, 1):
        train_heads(store_in(tmp_path), {"quick": QUICK}, whole, seed)
    assert trained == [([QUICK], 0)] * 2 + [([QUICK], 1)] * 2


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "one byte", "another archive"])
def test_a_damaged_file_is_fitted_again_with_a_warning(tmp_path, caplog, damage):
    first = fit_logistic(store_in(tmp_path))
    path, whole = min(tmp_path.iterdir()), {path: path.read_bytes() for path in tmp_path.iterdir()}
    content = whole[path]
    middle = len(content) // 2
    damaged = {
        "cut": content[:middle],
        "empty": b"",
        "text": b"not an archive",
        "one byte": content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :],
    }
    if damage == "another archive":
        with path.open("wb") as file:
            np.savez(file, count=np.array(1))
    else:
        path.write_bytes(damaged[damage])
    second = fit_logistic(store_in(tmp_path))
    (warning,) = caplog.messages
    assert warning == f"{path} is damaged: what it held is made again"
    np.testing.assert_array_equal(first.predictions["logistic"].out_of_fold, second.predictions["logistic"].out_of_fold)
    caplog.clear()
    fit_logistic(store_in(tmp_path))
    assert caplog.messages == []  # the file is whole again


def test_a_full_disk_is_said_once_and_the_run_goes_on(tmp_path, monkeypatch, caplog):
    fit_logistic(store_in(tmp_path))
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    found = fit_logistic(store_in(tmp_path), columns=BETA)
    assert caplog.messages == [f"{tmp_path} cannot be used (No space left on device), so no more fits are kept there"]
    np.testing.assert_array_equal(
        found.predictions["logistic"].out_of_fold,
        fit_logistic(KEEP_NONE, columns=BETA).predictions["logistic"].out_of_fold,
    )
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_without_a_folder_or_with_a_limit_of_nothing_no_fit_is_kept(tmp_path):
    for store in (FitStore(), store_in(tmp_path / "fits", 0)):
        for _ in range(2):
            fit_logistic(store)
        assert (store.reused, store.made) == (0, 4)
    assert list(tmp_path.iterdir()) == []


def test_what_was_used_least_recently_goes_first(tmp_path):
    fit_logistic(store_in(tmp_path))
    first = {path.name for path in tmp_path.iterdir()}
    size = max(path.stat().st_size for path in tmp_path.iterdir())
    for path in tmp_path.iterdir():
        os.utime(path, (0, 0))
    fit_logistic(store_in(tmp_path), columns=BETA)
    second = {path.name for path in tmp_path.iterdir()} - first
    fit_logistic(store_in(tmp_path))  # used again, so that those of beta are the older ones
    for name in second:
        os.utime(tmp_path / name, (1, 1))
    fit_logistic(store_in(tmp_path, 7 * size // 2), C=0.5)
    left = {path.name for path in tmp_path.iterdir()}
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 7 * size // 2
    assert len(left - first - second) == 2
    assert left.isdisjoint(second)
    assert left & first


def test_the_reason_for_new_fits_is_said(tmp_path):
    def say(inputs: Inputs, *columns: slice, C: float = 0.001) -> str:
        store, keys = store_in(tmp_path), FitKeys(inputs)
        estimator = OneVsRest(LogisticRegression(C=C))
        candidates = {f"logistic/{own.start}": Candidate(estimator, own) for own in columns}
        cross_fit = CrossFit(candidates, inputs, PLAN, 0, store, keys)
        said = describe_reuse(store, cross_fit.list_keys(), store.compare(keys.parts))
        cross_fit.run(1)
        return said

    assert say(INPUTS, ALPHA) == ""
    assert say(INPUTS, ALPHA) == "fits: all 2 are kept from earlier runs"
    assert say(INPUTS, ALPHA, BETA) == "fits: 2 of 4 are kept from earlier runs; to fit: logistic/4"
    assert say(INPUTS, ALPHA, BETA, C=0.5) == ""
    assert say(OTHER_INPUTS["labels"], ALPHA) == "fits: labels changed: all 2 are made again"
    other = "fits: labels, features of alpha changed: all 2 are made again"
    assert say(OTHER_INPUTS["features"], ALPHA) == other
    assert say(INPUTS, BETA) == "fits: all 2 are kept from earlier runs"


def test_other_features_of_one_backbone_leave_the_fits_of_another(tmp_path):
    fit_logistic(store_in(tmp_path), columns=BETA)
    store = store_in(tmp_path)
    fit_logistic(store, OTHER_INPUTS["features"], columns=BETA)
    assert (store.reused, store.made) == (2, 0)
    # The same features as the only ones, in other columns.
    beta = replace(
        INPUTS,
        columns={"beta": ALPHA},
        train=replace(TRAIN, features=np.ascontiguousarray(TRAIN.features[:, BETA])),
        test=replace(TEST, features=np.ascontiguousarray(TEST.features[:, BETA])),
    )
    fit_logistic(store, beta, columns=ALPHA)
    assert (store.reused, store.made) == (4, 0)


def test_an_array_is_recalled_by_what_it_is_of(tmp_path, caplog):
    made = []

    def make() -> np.ndarray:
        made.append(1)
        return np.array([[0.1, np.nan], [np.inf, -0.0]])

    for what in (("a", np.arange(3)), ("a", np.arange(3)), ("b", np.arange(3)), ("a", np.arange(3.0))):
        found = store_in(tmp_path).recall(what, make)
        np.testing.assert_array_equal(found, make())
        assert found.dtype == np.float64
    assert len(made) == 3 + 4
    path = min(tmp_path.iterdir())
    path.write_bytes(path.read_bytes()[:-1])
    for _ in range(2):
        store_in(tmp_path).recall(("a", np.arange(3)), make)
        store_in(tmp_path).recall(("b", np.arange(3)), make)
        store_in(tmp_path).recall(("a", np.arange(3.0)), make)
    assert caplog.messages == [f"{path} is damaged: what it held is made again"]
    assert len(made) == 3 + 4 + 1
    assert (store_in(tmp_path).reused, store_in(tmp_path).made) == (0, 0)  # fits are counted, not these
    KEEP_NONE.recall(("a",), make)
    assert len(made) == 3 + 4 + 2


def test_two_runs_at_once_share_a_folder_that_is_too_small_for_both(tmp_path, caplog):
    wide = np.zeros(2000)

    def use(number: int) -> list[float]:
        store = store_in(tmp_path, 5 * wide.nbytes)
        numbers = [*range(40), *range(40)][:: 1 - 2 * number]
        return [float(store.recall((n,), partial(np.full, 2000, float(n)))[0]) for n in numbers]

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(use, (0, 1, 0, 1)))
    assert found == [[*map(float, range(40))] * 2, [*map(float, range(39, -1, -1))] * 2] * 2
    assert caplog.messages == []
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 5 * wide.nbytes + 4 * (wide.nbytes + 200)


def classify_imports(module: str) -> set[str]:
    """The modules of this room that a module imports, by name without `classify.`."""
    tree = ast.parse((ROOM / f"{module.replace('.', '/')}.py").read_text())
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("classify"):
            package = (node.module or "").removeprefix("classify").removeprefix(".")
            names = [f"{package}.{alias.name}".removeprefix(".") for alias in node.names]
            found |= {name if (ROOM / f"{name.replace('.', '/')}.py").exists() else package for name in names}
    return found


def test_every_module_that_fits_import_decides_a_fit_or_is_known_not_to():
    seen, waiting = set(), {"crossfit.models", "models.baselines"}
    while waiting:
        module = waiting.pop()
        seen.add(module)
        waiting |= classify_imports(module) - seen
    assert seen - set(DECIDING) == NOT_DECIDING
    assert set(DECIDING) <= seen


def test_every_module_that_scores_import_decides_them_or_is_known_not_to():
    seen, waiting = set(), {"scores.scoring", "scores.choice"}
    while waiting:
        module = waiting.pop()
        seen.add(module)
        # what a fit is decided by is in the probabilities
        waiting |= {name for name in classify_imports(module) if name.split(".")[0] in ("scores", "ensembles")} - seen
    assert seen == set(SCORING)


def test_an_edit_of_a_deciding_module_is_another_identity(monkeypatch):
    before = FitKeys(INPUTS).parts["the code"]
    read = Path.read_bytes
    for module in DECIDING:
        path = ROOM / f"{module.replace('.', '/')}.py"
        monkeypatch.setattr(Path, "read_bytes", lambda self, path=path: read(self) + b"#" * (self == path))
        assert FitKeys(INPUTS).parts["the code"] != before, module


def test_a_file_under_another_key_is_damage(tmp_path, caplog):
    fit_logistic(store_in(tmp_path))
    one, other = sorted(tmp_path.iterdir())
    other.write_bytes(one.read_bytes())
    fit_logistic(store_in(tmp_path))
    assert caplog.messages == [f"{other} is damaged: what it held is made again"]


@pytest.mark.parametrize("content", ["[]", "3", "null", "{", "[" * 100_000])
def test_a_foreign_record_of_the_latest_run_is_replaced(tmp_path, content):
    (tmp_path / "latest.json").write_text(content)
    assert store_in(tmp_path).compare({"labels": "a"}) == []
    assert store_in(tmp_path).compare({"labels": "b"}) == ["labels"]


def test_what_cannot_be_removed_or_touched_is_left_and_what_is_there_is_found(tmp_path, monkeypatch, caplog):
    (tmp_path / "folder.fit").mkdir()
    fit_logistic(store_in(tmp_path))

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    unlink = Path.unlink
    monkeypatch.setattr(os, "utime", refuse)
    monkeypatch.setattr(
        Path, "unlink", lambda path, **choice: refuse() if path.suffix == ".fit" else unlink(path, **choice)
    )
    store = store_in(tmp_path, 1)  # every new file is beyond the limit
    fit_logistic(store)
    assert (store.reused, store.made) == (2, 0)
    fit_logistic(store, columns=BETA)
    assert (store.reused, store.made) == (2, 2)
    assert len(list(tmp_path.glob("*.fit"))) == 5
    assert caplog.messages == []


def test_a_store_that_gives_up_in_the_midst_of_other_threads_still_finds(tmp_path, caplog):
    (tmp_path / "fits").write_text("a file")

    def use(number: int) -> float:
        return float(store.recall((number,), lambda: np.array(number))[()])

    store = store_in(tmp_path / "fits")
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(use, range(50))) == list(range(50))
    assert len(caplog.messages) == 1
