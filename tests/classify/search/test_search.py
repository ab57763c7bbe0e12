"""`python -m classify search`: honest scores, whole batches, a study that goes on, and what it refuses."""

import errno
import json
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from zlib import crc32

import numpy as np
import optuna
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score
from typer.testing import CliRunner

from classify.__main__ import app
from classify.bank import train as bank
from classify.inputs import Inputs, read_inputs
from classify.models.heads import read_presets
from classify.search import command as search_command
from classify.search import search
from classify.search.search import best_trials, cross_fitted_choice, make_search_folds
from classify.search.study import JOURNAL, open_study
from features.common.errors import InputError, Stopped
from features.dataset.dataset import read_dataset
from features.store.cache import FeatureCache
from tests.classify.toy import Toy, change_cache_file, label_test_split, make_toy, write_cache_file


class Ridge:
    """Stands in for a head: a ridge regression, the noisier the farther the learning rate is from 0.01."""

    def __init__(self, spec, X, y):
        gram = X.T @ X + 10 * np.eye(X.shape[1])
        self._weights = np.linalg.solve(gram, X.T @ (y - y.mean(axis=0)))
        self._noise, self._seed = abs(np.log10(spec.learning_rate) + 2), crc32(repr(spec).encode())

    def predict_proba(self, X):
        noise = np.random.default_rng(self._seed).normal(size=(len(X), self._weights.shape[1]))
        return (1 / (1 + np.exp(-(X @ self._weights) - self._noise * noise))).astype(np.float32)


class Guess(Ridge):
    """Knows nothing of the labels."""

    def predict_proba(self, X):
        return np.random.default_rng(self._seed + len(X)).random((len(X), self._weights.shape[1]), dtype=np.float32)


class FakeBank:
    """Takes `train_bank`'s place, with a clock of its own that runs 10 seconds a fold."""

    def __init__(self, head=Ridge):
        self.head, self.seconds, self.calls, self.stop_at, self.stop = head, 0.0, [], None, Stopped(signal.SIGINT)

    def __call__(self, specs, X, y, split, seed, on_epochs):
        train_rows, validation_rows = split
        self.calls.append((specs, train_rows, validation_rows))
        if self.stop_at == len(self.calls):
            raise self.stop
        self.seconds += 10
        on_epochs(len(specs) * search.EPOCHS)
        return [self.head(spec, X[train_rows] - 5, y[train_rows]) for spec in specs]


@pytest.fixture(scope="module")
def unspoilt(tmp_path_factory) -> Toy:
    return make_toy(tmp_path_factory.mktemp("search"))


@pytest.fixture
def toy(unspoilt, tmp_path) -> Toy:
    """A copy that a test may change."""
    shutil.copytree(unspoilt.data.parent, tmp_path, dirs_exist_ok=True)
    return replace(unspoilt, data=tmp_path / unspoilt.data.name, cache=tmp_path / unspoilt.cache.name)


@pytest.fixture
def fake(monkeypatch) -> FakeBank:
    fake = FakeBank()
    monkeypatch.setattr(bank, "train_bank", fake)
    for module in (search, search_command):
        monkeypatch.setattr(module.time, "perf_counter", lambda: fake.seconds)
    return fake


def run(toy: Toy, out="study", *options: str):
    arguments = ["search", str(toy.data), "--cache", str(toy.cache), "--out", str(toy.data.parent / out), *options]
    result = CliRunner().invoke(app, arguments)
    return result.exit_code, " ".join(result.output.split()), toy.data.parent / out


def trials_of(folder):
    backend = optuna.storages.journal.JournalFileBackend(str(folder / JOURNAL))
    return optuna.load_study(study_name=None, storage=optuna.storages.JournalStorage(backend)).trials


def outcome(folder):
    return [(trial.params, trial.value, trial.user_attrs) for trial in trials_of(folder)]


def inputs_of(toy: Toy) -> Inputs:
    return read_inputs(read_dataset(toy.data), FeatureCache(toy.cache), None)


def test_writes_the_best_heads_and_all_trials(toy, fake):
    code, said, out = run(toy, "study", "--trials", "24", "--batch", "12")
    assert code == 0
    assert sorted(path.name for path in out.iterdir()) == ["best.json", JOURNAL, f"{JOURNAL}.lock"]
    trials = trials_of(out)
    assert len(trials) == 24
    best = max(trials, key=lambda trial: trial.value)
    heads = read_presets(out / "best.json")
    assert heads["best1"] == search.propose(optuna.trial.FixedTrial(best.params), 0)
    assert heads["best1"].epochs == search.EPOCHS
    structures = {(h.hidden_units, h.batch_norm, h.dropout, h.optimiser, h.batch_size) for h in heads.values()}
    assert 1 < len(heads) == len(structures) <= 5
    assert f"24 of 24 trials, best macro AUC {best.value:.4f}" in said
    assert f"best1 {best.number} {best.value:.4f}" in said
    assert "24 trials, 0 of them from earlier runs" in said
    assert "optimistic: the best of 24 trials, chosen on the folds that score it" in said
    assert "40 groups, none of them in two folds" in said
    assert "[I " not in said
    assert "Warning" not in said


def test_a_batch_is_one_pass_per_fold_over_few_structures_of_one_batch_size(toy, fake):
    run(toy, "study", "--trials", "20", "--batch", "16", "--folds", "4")
    assert [len(specs) for specs, _, _ in fake.calls] == [16] * 4 + [4] * 4
    specs = fake.calls[0][0]
    assert all(specs == other for other, _, _ in fake.calls[1:4])
    assert len({spec.batch_size for spec in specs}) == 1
    assert len({(s.hidden_units, s.batch_norm, s.dropout, s.optimiser) for s in specs}) == 2
    assert len({spec.learning_rate for spec in specs}) == 16


def test_the_score_is_out_of_fold_over_all_rows(toy, fake):
    _, _, out = run(toy, "study", "--trials", "3")
    inputs = inputs_of(toy)
    _, folds = make_search_folds(inputs, 3, 0)
    for trial in trials_of(out):
        spec = search.propose(optuna.trial.FixedTrial(trial.params), 0).for_classes(exclusive=False)
        probability = np.empty(inputs.train_labels.shape, np.float32)
        for fold, by_fold in zip(folds, trial.user_attrs["fold_aucs"], strict=True):
            head = Ridge(spec, inputs.train.features[fold.train] - 5, inputs.train_labels[fold.train])
            probability[fold.held_out] = head.predict_proba(inputs.train.features[fold.held_out])
            truth = inputs.train_labels[fold.held_out]
            assert by_fold == pytest.approx(roc_auc_score(truth, probability[fold.held_out]), abs=1e-6)
        # Of each label the pairs within a fold count alike.
        of_labels = []
        for truth, own in zip(inputs.train_labels.T, probability.T, strict=True):
            pairs = [truth[fold.held_out].sum() * (1 - truth[fold.held_out]).sum() for fold in folds]
            aucs = [roc_auc_score(truth[fold.held_out], own[fold.held_out]) for fold in folds]
            of_labels.append(np.average(aucs, weights=np.asarray(pairs, float)))
        assert trial.value == pytest.approx(np.mean(of_labels), abs=1e-6)


def test_stopping_rows_are_whole_groups_of_the_training_rows_never_held_out(toy, fake):
    run(toy, "study", "--trials", "1", "--folds", "4")
    inputs = inputs_of(toy)
    assert inputs.train.groups is not None
    _, folds = make_search_folds(inputs, 4, 0)
    for (_, train, stopping), fold in zip(fake.calls, folds, strict=True):
        np.testing.assert_array_equal(train, fold.train)
        np.testing.assert_array_equal(stopping, fold.validation)
        every = np.concatenate([train, stopping, fold.held_out])
        np.testing.assert_array_equal(np.sort(every), np.arange(200))
        sides = [set(inputs.train.groups[rows]) for rows in (train, stopping, fold.held_out)]
        assert sum(len(side) for side in sides) == 40
        assert len(stopping) == pytest.approx(30, abs=5)
    np.testing.assert_array_equal(np.sort(np.concatenate([fold.held_out for fold in folds])), np.arange(200))


def test_a_second_start_goes_on_as_if_there_had_been_one(toy, fake):
    _, _, at_once = run(toy, "once", "--trials", "24", "--batch", "8")
    run(toy, "twice", "--trials", "8", "--batch", "8")
    code, said, twice = run(toy, "twice", "--trials", "24", "--batch", "8")
    assert code == 0
    assert "holds 8 trials" in said
    assert "24 trials, 8 of them from earlier runs" in said
    assert outcome(twice) == outcome(at_once)
    assert (twice / "best.json").read_bytes() == (at_once / "best.json").read_bytes()

    passes = len(fake.calls)
    code, said, _ = run(toy, "twice", "--trials", "24", "--batch", "8")
    assert (code, len(fake.calls)) == (0, passes)
    assert "24 trials, 24 of them from earlier runs" in said


def make_exclusive(toy: Toy) -> None:
    table = pd.read_csv(toy.data / "train.csv")
    names = table.columns[1:4]
    table[names] = np.eye(3, dtype=int)[table[names].to_numpy().argmax(axis=1)]
    table.to_csv(toy.data / "train.csv", index=False)


def test_exclusive_classes_are_learnt_by_softmax(toy, fake):
    _, _, before = run(toy, "before", "--trials", "4", "--batch", "4")
    assert {spec.output for spec in fake.calls[-1][0]} == {"sigmoid"}
    make_exclusive(toy)
    code, said, out = run(toy, "study", "--trials", "4", "--batch", "4")
    assert code == 0
    assert "each labelled image has exactly one of 3 labels" in said
    assert {spec.output for spec in fake.calls[-1][0]} == {"softmax"}
    assert {spec.output for spec in read_presets(out / "best.json").values()} == {None}  # a run chooses it alike
    assert {spec.output for spec in read_presets(before / "best.json").values()} == {None}
    assert "understood: id: 'ID'; labels: 3: epidural" in said
    code, said, _ = run(toy, "each", "--trials", "4", "--batch", "4", "--exclusive", "no")
    assert (code, "so they are exclusive" in said) == (0, False)
    assert {spec.output for spec in fake.calls[-1][0]} == {"sigmoid"}
    code, said, _ = run(toy, "none", "--exclusive", "maybe")
    assert (code, "--exclusive: 'maybe' is none of auto, yes, no." in said) == (2, True)


def test_exclusive_classes_and_labels_by_themselves_are_two_studies(toy, fake):
    make_exclusive(toy)
    _, _, out = run(toy, "study", "--trials", "2")
    code, said, _ = run(toy, "study", "--trials", "4", "--exclusive", "no")
    outputs = "exclusive classes (softmax)", "each label by itself (sigmoid)"
    assert (code, f"a study of other output: {outputs[0]} then, {outputs[1]} now." in said) == (2, True)
    # An older study says no output: it was sigmoid.
    journal = (out / JOURNAL).read_text()
    assert journal.count(', "output": "softmax"') + journal.count(',"output":"softmax"') == 1
    (out / JOURNAL).write_text(journal.replace(', "output": "softmax"', "").replace(',"output":"softmax"', ""))
    code, said, _ = run(toy, "study", "--trials", "4")
    assert (code, f"a study of other output: {outputs[1]} then, {outputs[0]} now." in said) == (2, True)
    assert run(toy, "study", "--trials", "4", "--exclusive", "no")[0] == 0


def test_labels_of_test_undo_exclusive_classes_as_in_a_run(toy, fake):
    make_exclusive(toy)
    label_test_split(toy)
    code, said, _ = run(toy, "study", "--trials", "2", "--batch", "2")
    assert code == 0
    assert "labels: not taken as exclusive classes, as test image" in said
    assert {spec.output for spec in fake.calls[-1][0]} == {"sigmoid"}


def test_another_seed_proposes_other_heads(toy, fake):
    proposed = []
    for seed in ("0", "1"):
        _, _, out = run(toy, seed, "--trials", "4", "--seed", seed)
        proposed.append([trial.params["l2"] for trial in trials_of(out)])
    assert not set(proposed[0]) & set(proposed[1])


def test_what_was_told_guides_what_is_asked(toy, fake):
    gains = []
    for seed in ("0", "1", "2"):
        _, _, out = run(toy, seed, "--trials", "100", "--batch", "20", "--minutes", "60", "--seed", seed)
        values = np.array([trial.value for trial in trials_of(out)])
        gains.append(values[80:].mean() - values[:20].mean())
    assert np.mean(gains) > 0.03


@pytest.mark.parametrize(
    ("number", "code", "name"),
    [(signal.SIGINT, 130, "Ctrl-C"), (signal.SIGTERM, 143, "SIGTERM"), (signal.SIGHUP, 129, "SIGHUP")],
)
def test_a_signal_keeps_what_is_told_and_the_same_command_goes_on(toy, fake, number, code, name):
    fake.stop = Stopped(number)
    _, _, at_once = run(toy, "once", "--trials", "16", "--batch", "8")
    fake.calls.clear()
    fake.stop_at = 5  # in the second batch
    ended_with, said, out = run(toy, "stopped", "--trials", "16", "--batch", "8")
    assert ended_with == code
    assert "8 trials, 0 of them from earlier runs" in said
    assert f"ended: {name}" in said
    assert "best1" in read_presets(out / "best.json")
    fake.stop_at = None
    assert run(toy, "stopped", "--trials", "16", "--batch", "8")[0] == 0
    assert outcome(out) == outcome(at_once)


def test_ctrl_c_before_anything_was_told_writes_no_presets(toy, fake):
    fake.stop_at = 1
    code, said, out = run(toy)
    assert code == 130
    assert "study: 0 trials" in said
    assert not (out / "best.json").exists()


def test_nothing_is_asked_that_would_not_fit_into_the_time(toy, fake):
    code, said, out = run(toy, "study", "--batch", "5", "--minutes", "1.4")  # a batch takes half a minute
    assert code == 0
    assert "ended: the time is up" in said
    assert len(trials_of(out)) == 10
    assert fake.seconds == 60


def test_a_batch_that_overruns_the_time_is_dropped(toy, fake):
    run(toy, "study", "--batch", "5", "--trials", "5")
    begun = fake.seconds
    code, said, out = run(toy, "study", "--batch", "5", "--minutes", "0.3")
    assert code == 0
    assert fake.seconds - begun == 20  # the second fold met the limit of 18 seconds
    assert len(trials_of(out)) == 5

    code, said, _ = run(toy, "other", "--batch", "5", "--minutes", "0.3")
    assert code == 2
    assert "no batch of 5 trials was finished in the time given" in said
    assert "Give more --minutes, or a smaller --batch." in said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--backbones", "alpha"), "a study of other backbones: alpha"),
        (("--labels", "epidural"), "a study of other label names: epidural, intraparenchymal, subarachnoid then, epi"),
        (("--seed", "1"), "a study of other seed: 0 then, 1 now"),
        (("--folds", "4"), "a study of other number of folds: 3 then, 4 now"),
    ],
)
def test_a_study_of_something_else_is_refused(toy, fake, options, message):
    _, _, out = run(toy, "study", "--trials", "2")
    before = (out / JOURNAL).read_bytes()
    code, said, _ = run(toy, "study", "--trials", "4", *options)
    assert code == 2
    assert message in said
    assert "name another folder with --out" in said
    assert (out / JOURNAL).read_bytes() == before


def test_corrected_labels_or_groups_are_another_study(toy, fake):
    run(toy, "study", "--trials", "2")
    table = pd.read_csv(toy.data / "train.csv")
    table.loc[3, "epidural"] = 1 - table.loc[3, "epidural"]
    table.to_csv(toy.data / "train.csv", index=False)
    code, said, _ = run(toy, "study", "--trials", "4")
    assert (code, "a study of other labels" in said) == (2, True)

    run(toy, "grouped", "--trials", "2")
    table.drop(columns="patient").to_csv(toy.data / "train.csv", index=False)
    code, said, _ = run(toy, "grouped", "--trials", "4")
    assert (code, "a study of other folds" in said) == (2, True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--backbones", "gamma"), "gamma.h5 is not there (cached for train: alpha, beta)"),
        (("--backbones", "alpha,alpha"), "--backbones 'alpha,alpha': expected different names"),
        (("--labels", "stroke"), "stroke"),
        (("--folds", "41"), "41 folds need at least 41 groups; there are 40. Use --folds 40 or fewer."),
        (("--folds", "1"), "greater than or equal to 2"),
        (("--trials", "0"), "greater than or equal to 1"),
        (("--batch", "0"), "greater than or equal to 1"),
        (("--minutes", "0"), "greater than or equal to 0.01"),
        (("--minutes", "nan"), "--minutes"),
        (("--seed", "-1"), "greater than or equal to 0"),
    ],
)
def test_bad_usage_exits_2_says_why_and_writes_nothing(toy, options, message):
    code, said, out = run(toy, "study", *options)
    assert code == 2
    assert message in said
    assert sorted(path.name for path in out.parent.iterdir()) == ["cache", "toy"]


def test_too_few_groups_to_set_some_apart_exits_2(toy):
    table = pd.read_csv(toy.data / "train.csv")
    table["patient"] = np.where(np.arange(len(table)) % 2, "a", "b")
    table.to_csv(toy.data / "train.csv", index=False)
    code, said, _ = run(toy, "study", "--folds", "2")
    assert code == 2
    assert "rows to train on, all of one group or of one value in every label" in said


def test_features_that_are_not_finite_exit_2_and_name_file_and_image(toy):
    path = toy.cache / "train" / "alpha.h5"
    image_id = change_cache_file(path, lambda features: features.__setitem__((9, 2), np.inf))[9]
    code, said, out = run(toy)
    assert code == 2
    assert f"error: {path} is damaged (the features of image {image_id} are not finite, and 1 of 200 images" in said
    assert not out.exists()


def test_a_folder_of_something_else_is_refused(toy):
    out = toy.data.parent / "study"
    out.touch()
    code, said, _ = run(toy)
    assert (code, "study is not a folder. Name another with --out." in said) == (2, True)
    out.unlink()
    out.mkdir()
    (out / "thesis.tex").touch()
    code, said, _ = run(toy)
    assert (code, "is not a study: it holds thesis.tex" in said) == (2, True)


def test_a_study_that_somebody_works_on_is_refused(toy, fake):
    _, _, out = run(toy, "study", "--trials", "2")
    identity = next(iter(json.loads(line) for line in (out / JOURNAL).read_text().splitlines() if "identity" in line))
    with open_study(out, identity["user_attr"]["identity"]):
        code, said, _ = run(toy, "study", "--trials", "4")
    assert (code, "is being worked on by" in said) == (2, True)


def test_half_a_line_left_by_a_crash_is_cut_off_and_damage_is_refused(toy, fake):
    _, _, out = run(toy, "study", "--trials", "4", "--batch", "2")
    journal = (out / JOURNAL).read_bytes()
    (out / JOURNAL).write_bytes(journal[:-20])  # the last trial is lost
    code, said, _ = run(toy, "study", "--trials", "4", "--batch", "2")
    assert (code, "holds 3 trials" in said, len(trials_of(out))) == (0, True, 4)

    *whole, _ = journal.splitlines(keepends=True)
    zeroed, foreign = b"".join(whole) + b"\0" * 40 + b"\n", b"my precious notes, without a line's end"
    for damaged in (
        b"rubbish\n" + journal,
        zeroed,
        foreign,
        journal + b"notes",
        re.sub(rb'("params":{"hidden_units":)\d', rb"\g<1>9", journal),
    ):
        assert damaged != journal
        (out / JOURNAL).write_bytes(damaged)
        code, said, _ = run(toy)
        assert (code, f"{JOURNAL} is damaged" in said) == (2, True), said
        assert (out / JOURNAL).read_bytes() == damaged


def test_the_cross_fitted_choice_takes_each_fold_from_the_trial_that_is_best_on_the_others():
    aucs = np.array([[0.9, 0.5, 0.65], [0.6, 0.79, 0.74], [0.5, 0.6, 0.9]])
    # sums over folds 2 and 3: 1.15, 1.53, 1.5; over folds 1 and 3: 1.55, 1.34, 1.4; over folds 1 and 2: 1.4, 1.39, 1.1
    assert cross_fitted_choice(aucs) == pytest.approx(np.mean([0.6, 0.5, 0.65]))
    with_gap = np.insert(aucs, 1, np.nan, axis=1)
    assert cross_fitted_choice(with_gap) == pytest.approx(cross_fitted_choice(aucs))
    assert cross_fitted_choice(aucs[:, :1]) is None


def test_where_there_is_nothing_to_learn_the_best_is_optimistic_and_the_cross_fitted_choice_is_not():
    rng = np.random.default_rng(0)
    best, chosen = [], []
    for _ in range(300):
        aucs = rng.normal(0.5, 0.05, size=(200, 4))
        best.append(aucs.mean(axis=1).max())
        chosen.append(cross_fitted_choice(aucs))
    assert np.mean(best) > 0.56
    assert np.mean(chosen) == pytest.approx(0.5, abs=0.005)


def test_what_the_best_score_is_worth_is_said(toy, fake):
    fake.head = Guess
    _, said, out = run(toy, "study", "--trials", "80")
    trials = trials_of(out)
    best = best_trials(trials, 1)[0]
    assert best.value > 0.53
    assert np.mean([trial.value for trial in trials]) == pytest.approx(0.5, abs=0.01)
    by_fold = np.array([trial.user_attrs["fold_aucs"] for trial in trials])
    assert f"Mean over folds: {np.mean(by_fold[best.number]):.4f} for the best trial;" in said
    assert f"{cross_fitted_choice(by_fold):.4f} if each fold is scored by the trial that was best on the others" in said


def test_it_says_which_views_the_heads_learn_from(toy, fake):
    for split, ids in (("train", toy.train_ids), ("test", toy.test_ids)):
        views = np.random.default_rng(0).normal(size=(len(ids), 2, 5)).astype(np.float32)
        write_cache_file(toy.cache / split / "alpha.h5", ids, views)
    code, said, _ = run(toy, "study", "--trials", "2")
    assert code == 0, said
    assert "understood: views: mean of 2 of alpha; 1 of beta" in said


def test_the_bank_itself_trains_a_batch(toy, monkeypatch):
    monkeypatch.setattr(search, "EPOCHS", 3)
    code, said, out = run(toy, "study", "--trials", "2", "--folds", "2", "--backbones", "beta", "--minutes", "20")
    assert code == 0
    first, second = trials_of(out)
    assert 0 < first.value != second.value < 1
    assert "200 images; 3 labels; 20 features of beta" in said
    assert {head.epochs for head in read_presets(out / "best.json").values()} == {3}


def test_help_loads_neither_optuna_nor_tensorflow_nor_pandas():
    program = (
        "import sys; from typer.testing import CliRunner; from classify.__main__ import app; "
        "result = CliRunner().invoke(app, ['search', '--help']); assert '--trials' in result.output, result.output; "
        "print(sorted({'pandas', 'sklearn', 'numpy', 'h5py', 'tensorflow', 'keras', 'optuna'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_of_a_batch_that_is_cut_off_while_it_is_kept_nothing_is_kept(tmp_path, monkeypatch, error):
    """Else the next batch would begin within it, and other heads would be proposed."""
    trials = [optuna.trial.create_trial(value=0.1 * number) for number in range(3)]
    with open_study(tmp_path, {"seed": 1}) as study:
        study.add(trials[:1])
        before = (tmp_path / JOURNAL).read_bytes()

        def cut_off(added):
            optuna.Study.add_trials(study._kept, added[:1])
            raise error

        monkeypatch.setattr(study._kept, "add_trials", cut_off)
        with pytest.raises(InputError if isinstance(error, OSError) else KeyboardInterrupt):
            study.add(trials[1:])
        assert (tmp_path / JOURNAL).read_bytes() == before
    with open_study(tmp_path, {"seed": 1}) as study:
        assert [trial.value for trial in study.trials] == [0.0]
