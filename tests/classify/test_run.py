"""`python -m classify run` from end to end: files, exit codes, messages, reproducibility."""

import errno
import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from threadpoolctl import threadpool_info, threadpool_limits  # type: ignore[import-untyped]
from typer.testing import CliRunner

from classify.__main__ import app
from classify.ensembles.ensembles import ENSEMBLES
from classify.rundir import files
from classify.scores.metrics import METRICS, ROW_METRICS
from tests.classify.toy import LABELS, Toy, change_cache_file, label_test_split, make_toy, reject

LOGISTIC = ["logistic/alpha", "logistic/beta", "logistic/all"]
MODELS = [*LOGISTIC, *ENSEMBLES]
TABLES = (
    "predictions_probability.csv",
    "predictions_binary.csv",
    "oof_probability.csv",
    "metrics.csv",
    "thresholds.csv",
    "backbones.csv",
    "labels.csv",
    "gallery.csv",
    "leaderboard.csv",
    "label_errors.csv",
    "operating_points.csv",
    "group_scores.csv",
)


#: Options of a run of which a test looks at no figure.
FEW = ("--folds", "2", "--ensemble", "mean")


@pytest.fixture
def toy(tmp_path) -> Toy:
    return make_toy(tmp_path)


def run(toy: Toy, out="run", *options: str):
    """Run the command; by logistic regression alone, which is quick, and without earlier fits, unless asked for.

    What it understood of the data set is left out of what it said.
    """
    arguments = ["run", str(toy.data), "--cache", str(toy.cache), "--out", str(toy.data.parent / out), *options]
    arguments += [] if "--preset" in options else ["--preset", "none"]
    arguments += [] if "--baselines" in options else ["--baselines", "logistic"]
    arguments += [] if "--fits-gb" in options else ["--fits-gb", "0"]
    result = CliRunner().invoke(app, arguments)
    said = " ".join(line for line in result.output.splitlines() if not line.startswith(("understood: ", "fitted: ")))
    return result.exit_code, " ".join(said.split()), toy.data.parent / out


def test_writes_a_run(toy):
    code, said, out = run(toy, "run", "--select", "mean")
    assert code == 0
    assert sorted(path.name for path in out.iterdir()) == sorted([*TABLES, "gradients.h5", "models", "run.json"])

    probabilities = pd.read_csv(out / TABLES[0])
    assert list(probabilities.columns) == ["ID", *LABELS]
    assert list(probabilities["ID"]) == toy.test_ids
    binary = pd.read_csv(out / TABLES[1])
    assert list(binary["ID"]) == toy.test_ids
    thresholds = pd.read_csv(out / TABLES[4]).set_index(["model", "label"])
    assert list(thresholds.index) == [(model, label) for model in MODELS for label in LABELS]
    cuts = thresholds["threshold"]["mean"][list(LABELS)].to_numpy()
    np.testing.assert_array_equal(binary[list(LABELS)], probabilities[list(LABELS)].to_numpy() >= cuts)
    by_chance = (binary[list(LABELS)].to_numpy() == np.roll(toy.test_labels, 1, axis=0)).mean()
    assert (binary[list(LABELS)].to_numpy() == toy.test_labels).mean() > max(0.75, by_chance)

    out_of_fold = pd.read_csv(out / TABLES[2])
    assert list(out_of_fold.columns) == ["ID", "model", "fold", *LABELS]
    assert list(out_of_fold["model"].unique()) == MODELS
    for _, rows in out_of_fold.groupby("model"):
        assert list(rows["ID"]) == toy.train_ids
        assert (np.ptp(rows["fold"].to_numpy().reshape(40, 5), axis=1) == 0).all()  # a patient: 5 images on end
    wide = out_of_fold.pivot_table(index="ID", columns="model", values=LABELS[0])
    np.testing.assert_allclose(wide["mean"], wide[LOGISTIC].mean(axis=1), rtol=1e-5)

    metrics = pd.read_csv(out / TABLES[3])
    assert list(metrics.columns) == ["model", "split", "label", "metric", "value", "low", "high", "interval"]
    assert len(metrics) == len(MODELS) * ((len(LABELS) + 2) * len(METRICS) + len(ROW_METRICS))
    assert set(metrics["split"]) == {"oof"}
    assert set(metrics.loc[metrics["low"].isna(), "metric"]) == {"calibration_error"}
    assert (metrics["low"] <= metrics["high"]).sum() == metrics["low"].notna().sum()
    of_mean = metrics[(metrics["model"] == "mean") & (metrics["metric"] == "roc_auc")].set_index("label")["value"]
    probability = wide["mean"][toy.train_ids].to_numpy()
    fold = out_of_fold[out_of_fold["model"] == "mean"]["fold"].to_numpy()
    positive, negative = (np.flatnonzero(toy.train_labels[:, 0] == value) for value in (1, 0))
    same = fold[positive][:, None] == fold[negative]
    expected = (probability[positive][:, None] > probability[negative])[same].mean()
    assert of_mean[LABELS[0]] == pytest.approx(expected, abs=1e-6)
    assert of_mean["macro"] > 0.75

    assert "40 groups, none of them in two folds" in said
    macro = metrics[(metrics["model"] == "mean") & (metrics["metric"] == "roc_auc")].set_index("label").loc["macro"]
    assert f"mean * 2 of 2 {macro['value']:.3f} [{macro['low']:.3f}, {macro['high']:.3f}]" in said
    assert "30 of 30 images predicted by mean; not labelled, so not scored" in said


def test_records_what_it_did(toy):
    _, _, out = run(toy, "run", "--seed", "3", "--folds", "4")
    record = json.loads((out / "run.json").read_text())
    assert record["arguments"]["seed"] == 3
    assert record["folds"]["groups"] == 40
    assert sum(record["folds"]["rows"]) == 200
    assert len(record["folds"]["rows"]) == record["folds"]["count"] == 4
    assert record["splits"]["train"]["positives"] == dict(zip(LABELS, toy.train_labels.sum(axis=0), strict=True))
    assert record["splits"]["train"]["fingerprints"] == record["splits"]["test"]["fingerprints"]
    assert record["splits"]["test"]["positives"] is None
    leaderboard = pd.read_csv(out / "leaderboard.csv").set_index("model")
    assert leaderboard["value"].is_monotonic_decreasing
    tied = leaderboard[leaderboard["tied"] == 1]
    assert tied.loc[record["final_model"], "backbones"] == tied["backbones"].min()
    assert leaderboard.loc[record["final_model"], "difference"] == 0
    assert leaderboard["value"].max() - leaderboard.loc[record["final_model"], "value"] == pytest.approx(
        leaderboard["difference"].max()
    )
    assert len(record["selection"]["nested"]["chosen"]) == 4
    assert record["models"]["logistic/all"]["backbones"] == ["alpha", "beta"]
    assert record["intervals"]["draws"] == 1000
    assert record["versions"]["numpy"] == np.__version__
    assert record["warnings"] == []


def test_equal_runs_have_equal_bytes_whatever_the_jobs_and_another_seed_has_others(toy):
    first, again, other = (
        run(toy, *options)[2]
        for options in (("a", "--jobs", "1"), ("b", "--jobs", "3"), ("c", "--jobs", "1", "--seed", "1"))
    )
    for name in TABLES:
        assert (first / name).read_bytes() == (again / name).read_bytes()
        assert name == TABLES[1] or (first / name).read_bytes() != (other / name).read_bytes()


def test_products_have_one_thread_from_the_first_fit_to_the_last_file(toy, monkeypatch):
    threads = []

    def watch(*arguments):
        threads.extend(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas")
        return write_files(*arguments)

    write_files = files.write_files
    monkeypatch.setattr(files, "write_files", watch)
    with threadpool_limits(2, user_api="blas"):  # as where nobody limits them
        run(toy, "run", "--baselines", "prior", "--ensemble", "none")
    assert set(threads) == {1}


def test_rejected_test_images_keep_their_rows_with_empty_cells_and_exit_3(toy):
    lost = toy.test_ids[4]
    reject(toy, f"test/{lost}.png", f"train/{toy.train_ids[0]}.png")
    code, said, out = run(toy, "run", *FEW)
    assert code == 3
    for name in TABLES[:2]:
        lines = (out / name).read_text().splitlines()
        assert len(lines) == 31
        assert lines[5] == f"{lost},,,"
        assert ",," not in "".join(lines[:5] + lines[6:])
        assert list(pd.read_csv(out / name)["ID"]) == toy.test_ids
    assert set((out / TABLES[1]).read_text().replace("\n", ",").split(",")[4:]) == {"0", "1", "", *toy.test_ids}
    assert f"1 image without features, whose cells in the predictions are empty: {lost}" in said
    assert f"1 of 200 images without features, left out: {toy.train_ids[0]}" in said
    splits = json.loads((out / "run.json").read_text())["splits"]
    assert splits["test"]["rejected"] == [lost]
    assert splits["train"]["rejected"] == [toy.train_ids[0]]
    assert toy.train_ids[0] not in set(pd.read_csv(out / TABLES[2])["ID"])


def test_rejected_train_images_alone_are_said_and_exit_0(toy):
    reject(toy, *(f"train/{image_id}.png" for image_id in toy.train_ids[:12]))
    code, said, _ = run(toy, "run", *FEW)
    assert code == 0
    assert "12 of 200 images without features, left out" in said
    assert f"{toy.train_ids[9]} and 2 more (" in said


def test_without_a_test_split_there_are_out_of_fold_results_only(toy):
    for path in (toy.data / "test").iterdir():
        path.unlink()
    (toy.data / "test").rmdir()
    (toy.data / "test.csv").unlink()
    code, said, out = run(toy, "run", *FEW)
    assert code == 0
    assert sorted(path.name for path in out.iterdir()) == [
        "backbones.csv",
        "gallery.csv",
        "gradients.h5",
        "group_scores.csv",
        "label_errors.csv",
        "labels.csv",
        "leaderboard.csv",
        "metrics.csv",
        "models",
        "oof_probability.csv",
        "operating_points.csv",
        "run.json",
        "thresholds.csv",
    ]
    assert "no test split, so there are only out-of-fold results" in said


def test_patients_in_train_and_in_test_are_a_warning(toy):
    label_test_split(toy)
    table = pd.read_csv(toy.data / "test.csv")
    patient = pd.read_csv(toy.data / "train.csv")["patient"].iloc[0]
    table.assign(patient=[patient, *["new"] * (len(table) - 1)]).to_csv(toy.data / "test.csv", index=False)
    code, said, out = run(toy, "run", *FEW)
    told = f"1 group is in train and in test, so that the figures of test are too good: {patient}."
    assert (code, f"warning: {told}" in said) == (0, True), said
    assert told in json.loads((out / "run.json").read_text())["warnings"]
    table[["ID"]].assign(patient=patient).to_csv(toy.data / "test.csv", index=False)  # no labels, so no figures
    assert "in train and in test" not in run(toy, "run", *FEW, "--overwrite")[1]


def test_a_labelled_test_split_is_scored_too(toy):
    label_test_split(toy)
    _, _, out = run(toy, "run", *FEW, "--select", "mean")
    metrics = pd.read_csv(out / "metrics.csv").set_index(["model", "split", "label", "metric"])["value"]
    predicted = pd.read_csv(out / "predictions_binary.csv")[list(LABELS)].to_numpy()
    for index, label in enumerate(LABELS):
        expected = (predicted[:, index] == toy.test_labels[:, index]).mean()
        assert metrics["mean", "test", label, "accuracy"] == pytest.approx(expected)


def test_the_labels_and_the_gallery_are_written_for_the_report(toy):
    label_test_split(toy)
    _, _, out = run(toy, "run", *FEW, "--select", "mean")
    table = pd.read_csv(out / "labels.csv", dtype={"fold": "Int64"})
    assert list(table.columns) == ["split", "ID", "group", "fold", "stored", *LABELS]
    assert list(table["ID"]) == [*toy.train_ids, *toy.test_ids]
    np.testing.assert_array_equal(table[list(LABELS)], np.vstack([toy.train_labels, toy.test_labels]))
    train, test = table[table["split"] == "train"], table[table["split"] == "test"]
    assert list(train["group"]) == [f"p{row // 5}" for row in range(len(toy.train_ids))]
    assert test["group"].isna().all()
    assert test["fold"].isna().all()
    out_of_fold = pd.read_csv(out / "oof_probability.csv")
    np.testing.assert_array_equal(train["fold"], out_of_fold.loc[out_of_fold["model"] == "mean", "fold"])

    gallery = pd.read_csv(out / "gallery.csv")
    assert list(gallery.columns) == ["split", "ID", "label", "outcome", "rank"]
    assert set(gallery["split"]) == {"train", "test"}
    decided = pd.read_csv(out / "predictions_binary.csv").set_index("ID")
    truth = test.set_index("ID")
    for row in gallery[(gallery["split"] == "test") & (gallery["outcome"] == "false_positive")].itertuples():
        assert (decided.loc[row.ID, row.label], truth.loc[row.ID, row.label]) == (1, 0)


def test_an_undefined_metric_is_an_empty_cell_with_its_reason_in_run_json(toy):
    toy.test_labels[:, 1] = 0
    label_test_split(toy)
    _, _, out = run(toy, "run", "--backbones", "alpha")
    assert "logistic/alpha,test,intraparenchymal,roc_auc,,,,\n" in (out / "metrics.csv").read_text()
    undefined = json.loads((out / "run.json").read_text())["undefined_metrics"]
    reasons = {(u["split"], u["label"], u["metric"]): u["reason"] for u in undefined}
    assert reasons["test", "intraparenchymal", "roc_auc"] == "all 30 rows have the value 0"
    for split in ("oof", "test"):
        assert reasons[split, "macro", "roc_auc"] == "without intraparenchymal (all of test has the value 0)"
    assert {label for split, label, _ in reasons if split == "oof"} == {"macro"}


def test_one_backbone_is_one_model_and_says_so(toy):
    code, said, out = run(toy, "run", "--backbones", "beta", "--labels", "epidural")
    assert code == 0
    assert set(pd.read_csv(out / "metrics.csv")["model"]) == {"logistic/beta"}
    assert "only one model, so there is no ensemble" in said
    assert "predicted by logistic/beta" in said
    assert list(pd.read_csv(out / "predictions_binary.csv").columns) == ["ID", "epidural"]


def test_without_groups_the_folds_say_what_that_means(toy):
    table = pd.read_csv(toy.data / "train.csv").drop(columns="patient")
    table.to_csv(toy.data / "train.csv", index=False)
    assert "no groups known: images of one group may be on both sides" in run(toy, "run", *FEW)[1]


def test_a_file_of_groups_makes_the_folds(toy):
    path = toy.data.parent / "groups.csv"
    pd.DataFrame({"ID": toy.train_ids, "group": np.arange(200) // 20}).to_csv(path, index=False)
    _, said, out = run(toy, "run", *FEW, "--groups", str(path))
    assert "10 groups, none of them in two folds" in said
    folds = pd.read_csv(out / "oof_probability.csv")["fold"].to_numpy().reshape(-1, 20)
    assert (np.ptp(folds, axis=1) == 0).all()
    assert json.loads((out / "run.json").read_text())["arguments"]["groups"] == str(path)


def test_overwrite_replaces_a_run_and_only_then(toy):
    first = run(toy, "run", *FEW)[2]
    kept = (first / "metrics.csv").read_bytes()
    code, said, _ = run(toy, "run", *FEW)
    assert (code, "holds a run already" in said) == (2, True)
    assert (first / "metrics.csv").read_bytes() == kept
    assert run(toy, "run", *FEW, "--overwrite", "--seed", "1")[0] == 0
    assert (first / "metrics.csv").read_bytes() != kept


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--backbones", "gamma"), "gamma.h5 is not there (cached for train: alpha, beta)"),
        (("--backbones", "alpha,,beta"), "--backbones 'alpha,,beta': expected different names between commas"),
        (("--labels", "epidural,epidural"), "--labels 'epidural,epidural': expected different names"),
        (("--labels", "stroke"), "stroke"),
        (("--group-column", "clinic"), "has no column 'clinic'"),
        (("--groups", "none.csv"), "none.csv cannot be read: No such file or directory"),
        (("--groups", "g.csv", "--group-column", "patient"), "--group-column patient: give one of them."),
        (("--folds", "41"), "41 folds need at least 41 groups; there are 40. Use --folds 40 or fewer."),
        (("--folds", "1"), "greater than or equal to 2"),
        (
            ("--baselines", "tree"),
            "--baselines 'tree': tree is not a baseline. Expected some of logistic, ridge_regression, svm",
        ),
        (("--ensemble", "median"), "--ensemble 'median': median is not an ensemble. Expected mean, logit_mean"),
        (("--ensemble", "mean,mean"), "--ensemble 'mean,mean': expected different names"),
        (
            ("--select", "f1"),
            "--select 'f1': expected a metric (roc_auc, average_precision, log_loss, brier) or a model",
        ),
        (("--backbones", "alpha", "--select", "mean"), "--select 'mean': expected a metric"),
        (("--calibration", "beta"), "'beta' is not a calibration. Expected temperature, platt, isotonic"),
        (("--threshold", "0.5"), "--threshold '0.5': expected one of f1, f2"),
        (("--jobs", "0"), "greater than or equal to 1"),
        (("--seed", "-1"), "greater than or equal to 0"),
    ],
)
def test_bad_usage_exits_2_says_why_and_writes_nothing(toy, options, message):
    code, said, out = run(toy, "run", *options)
    assert code == 2
    assert message in said
    assert sorted(path.name for path in out.parent.iterdir()) == ["cache", "toy"]


def test_a_cache_or_data_set_that_is_not_there_exits_2(toy, tmp_path):
    missing = Toy(toy.data, tmp_path / "none", [], [], toy.train_labels, toy.test_labels)
    code, said, _ = run(missing)
    assert code == 2
    assert "none is not there: no features have been extracted" in said
    missing = Toy(tmp_path / "nothing", toy.cache, [], [], toy.train_labels, toy.test_labels)
    assert run(missing)[0] == 2


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_features_that_are_not_finite_exit_2_and_name_file_and_image(toy, split, value):
    path = toy.cache / split / "beta.h5"
    stored = change_cache_file(path, lambda features: features.__setitem__(([3, 17], 5), value))
    ids = toy.train_ids if split == "train" else toy.test_ids
    worst = min(stored[3], stored[17], key=ids.index)  # the first in the data set's order
    code, said, out = run(toy)
    assert code == 2
    assert said == (
        f"error: {path} is damaged (the features of image {worst} are not finite, and 2 of {len(ids)} images have such "
        f"features). Run: .venv/bin/python -m features verify {toy.cache}"
    )
    assert not out.exists()
    assert run(toy, "run", *FEW, "--backbones", "alpha")[0] == 0


def test_a_rejected_image_may_have_any_features(toy):
    stored = change_cache_file(toy.cache / "train" / "beta.h5", lambda features: features.__setitem__((3, 5), np.nan))
    reject(toy, f"train/{stored[3]}.png")
    assert run(toy, "run", *FEW)[0] == 0


def test_a_disk_that_is_full_exits_2_and_keeps_what_was_fitted(toy, monkeypatch):
    def fail(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_csv", fail)
    code, said, out = run(toy, "run", *FEW, "--fits-gb", "1")
    assert code == 2
    assert "predictions_probability.csv cannot be written: No space left on device." in said
    assert sorted(path.name for path in out.parent.iterdir()) == ["cache", "toy"]
    assert list((toy.cache / "fits").glob("*.fit"))


def test_help_loads_neither_pandas_nor_scikit_learn_nor_tensorflow():
    program = (
        "import sys; from typer.testing import CliRunner; from classify.__main__ import app; "
        "result = CliRunner().invoke(app, ['run', '--help']); assert '--backbones' in result.output, result.output; "
        "print(sorted({'pandas', 'sklearn', 'scipy', 'numpy', 'h5py', 'tensorflow', 'keras'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_a_wrong_option_is_reported_before_the_imports_that_take_seconds(tmp_path):
    program = (
        "import sys; from typer.testing import CliRunner; from classify.__main__ import app; "
        "result = CliRunner().invoke(app, ['run', 'X', '--out', sys.argv[1], '--baselines', 'nope']); "
        "assert 'nope is not a baseline' in result.output, result.output; "
        "print(sorted({'pandas', 'sklearn', 'scipy', 'tensorflow', 'keras'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "run")]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
