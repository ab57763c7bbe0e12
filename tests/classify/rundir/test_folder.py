"""A run's folder is whole or absent, and nothing else is ever replaced."""

import json
from pathlib import Path

import pytest

from classify.rundir.folder import PREDICTION_LOCK, SealedRun, hold_run, open_run, seal
from features.common.errors import InputError
from features.common.files import hold


def record(text):
    return json.dumps({"folds": {}, "final_model": text})


def interrupt_run(run, error, overwrite=False):
    with open_run(run, overwrite) as staging:
        (staging / "metrics.csv").write_text("half")
        raise error


def write_run(run, text, names=("metrics.csv", "run.json"), overwrite=False):
    with open_run(run, overwrite) as staging:
        for name in names:
            (staging / name).write_text(record(text) if name == "run.json" else text)


def test_publishes_what_was_written_and_leaves_nothing_beside_it(tmp_path):
    write_run(tmp_path / "deep" / "run", "1")
    assert sorted(p.name for p in (tmp_path / "deep" / "run").iterdir()) == ["metrics.csv", "run.json"]
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["run"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_interrupted_run_leaves_nothing(tmp_path, error):
    with pytest.raises(error):
        interrupt_run(tmp_path / "run", error)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_overwrite_leaves_the_earlier_run(tmp_path):
    write_run(tmp_path / "run", "1")
    with pytest.raises(KeyboardInterrupt):
        interrupt_run(tmp_path / "run", KeyboardInterrupt, overwrite=True)
    assert files(tmp_path / "run") == {"metrics.csv": "1", "run.json": record("1")}


def test_what_a_killed_run_left_is_cleared_away(tmp_path):
    for name in ("run", "empty"):
        (tmp_path / name / ".partial").mkdir(parents=True)
    (tmp_path / "run" / ".partial" / "metrics.csv").write_text("half")
    (tmp_path / "run" / ".lock").touch()
    for name in ("run", "empty"):
        write_run(tmp_path / name, "1", names=("run.json",))
        assert [p.name for p in (tmp_path / name).iterdir()] == ["run.json"]


def test_a_link_in_place_of_the_staging_folder_is_removed_and_what_it_leads_to_stays(tmp_path):
    run, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    put(elsewhere, "mine")
    run.mkdir()
    (run / ".partial").symlink_to(elsewhere)
    with open_run(run, False) as staging:
        assert list(staging.iterdir()) == []
        put(staging, "run.json", text=record("1"))
    assert files(run) == {"run.json": record("1")}
    assert files(elsewhere) == {"mine": "stale"}


def put(run, *names, text="stale"):
    for name in names:
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text(text)


def files(run):
    return {str(path.relative_to(run)): path.read_text() for path in run.rglob("*") if path.is_file()}


def test_overwriting_removes_what_an_earlier_run_and_its_followers_left_and_nothing_else(tmp_path):
    run = tmp_path / "run"
    write_run(run, "1", names=("metrics.csv", "predictions_binary.csv", "run.json"))
    put(run, "report.html", "figures/a.png", "cam/heat/0/1.png", "audit.json", "duplicates.csv", "groups.csv")
    predicted = ("predictions_probability.csv", "prediction.json", "cache/new/a.h5", "cam/cam.json")
    put(run, *(f"predictions/{folder}/{name}" for folder in ("ward", "clinic") for name in predicted))
    mine = ("notes.txt", "predictions/ward/notes.txt", "predictions/mine/predictions_binary.csv")
    put(run, *mine, text="mine")
    write_run(run, "2", overwrite=True)
    assert files(run) == {"metrics.csv": "2", "run.json": record("2")} | dict.fromkeys(mine, "mine")
    assert not (run / "predictions" / "clinic").exists()
    put(run, "predictions/ward/prediction.json")
    for name in mine[1:]:
        (run / name).unlink()
    (run / "predictions" / "mine").rmdir()
    write_run(run, "3", overwrite=True)
    assert not (run / "predictions").exists()


def test_overwriting_leaves_predictions_that_are_being_made(tmp_path):
    write_run(tmp_path, "1")
    put(
        tmp_path, "predictions/ward/cache/new/a.h5", "predictions/ward/prediction.json", "predictions/clinic/cache/b.h5"
    )
    with hold_run(tmp_path / "predictions" / "ward", PREDICTION_LOCK):
        write_run(tmp_path, "2", overwrite=True)
        assert (tmp_path / "predictions" / "ward" / PREDICTION_LOCK).exists()
    kept = dict.fromkeys(("predictions/ward/cache/new/a.h5", "predictions/ward/prediction.json"), "stale")
    assert files(tmp_path) == {"metrics.csv": "2", "run.json": record("2")} | kept


def test_overwriting_removes_what_killed_commands_left(tmp_path):
    write_run(tmp_path, "1")
    put(tmp_path, ".cam.partial/cam.json", ".cam.lock", ".figuresab_cd12z/figures/a.png", "prediction.json")
    put(
        tmp_path,
        *(
            f"predictions/{name}"
            for name in ("ward/cache/new/a.h5", "clinic/cache/new/a.h5", "clinic/.prediction.lock")
        ),
    )
    put(tmp_path, "predictions/ward/notes.txt", text="mine")
    write_run(tmp_path, "2", overwrite=True)
    assert files(tmp_path) == {"metrics.csv": "2", "run.json": record("2"), "predictions/ward/notes.txt": "mine"}
    assert {path.name for path in tmp_path.iterdir()} == {"metrics.csv", "run.json", "predictions"}
    assert not (tmp_path / "predictions" / "clinic").exists()


def test_overwriting_leaves_heat_maps_that_are_being_drawn_to_their_command(tmp_path):
    write_run(tmp_path, "1")
    put(tmp_path, ".cam.partial/cam.json")
    with hold(tmp_path / ".cam.lock"):
        write_run(tmp_path, "2", overwrite=True)
        assert (tmp_path / ".cam.partial" / "cam.json").exists()
        with pytest.raises(InputError, match="is being worked on"), hold(tmp_path / ".cam.lock"):
            pass
    assert (tmp_path / "metrics.csv").read_text() == "2"


def test_overwriting_keeps_groups_of_a_person_and_those_that_the_new_run_reads(tmp_path):
    run = tmp_path / "run"
    write_run(run, "1")
    put(run, "groups.csv")
    write_run(run, "2", overwrite=True)  # no audit made them
    put(run, "audit.json", "duplicates.csv")
    with open_run(run, True, run / "groups.csv") as staging:
        (staging / "run.json").write_text(record("3"))
    assert files(run) == {"groups.csv": "stale", "run.json": record("3")}
    put(run, "audit.json")
    write_run(run, "4", overwrite=True)
    assert files(run) == {"metrics.csv": "4", "run.json": record("4")}


def test_a_folder_of_predictions_that_is_a_link_stays_with_what_it_leads_to(tmp_path):
    run, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    put(elsewhere, "ward/prediction.json", text="mine")
    write_run(run, "1")
    (run / "predictions").symlink_to(elsewhere)
    write_run(run, "2", overwrite=True)
    assert files(elsewhere) == {"ward/prediction.json": "mine"}
    assert (run / "predictions").is_symlink()


def write_models(run, *names, overwrite=False):
    with open_run(run, overwrite) as staging:
        for name in names:
            (staging / "models" / name).mkdir(parents=True)
            (staging / "models" / name / "fold0.keras").write_text(name)
        (staging / "run.json").write_text(record(""))


def test_overwriting_replaces_the_models_whole_or_takes_them_away(tmp_path):
    run = tmp_path / "run"

    write_models(run, "linear__alpha", "linear__beta")
    assert sorted(files(run)) == ["models/linear__alpha/fold0.keras", "models/linear__beta/fold0.keras", "run.json"]
    write_models(run, "wide__alpha", overwrite=True)
    assert sorted(files(run)) == ["models/wide__alpha/fold0.keras", "run.json"]
    write_models(run, overwrite=True)
    assert sorted(files(run)) == ["run.json"]
    assert not (run / "models").exists()


def test_a_file_or_a_link_where_the_models_belong_is_replaced_and_what_it_leads_to_is_not(tmp_path):
    run, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "mine").touch()
    write_models(run)
    (run / "models").symlink_to(elsewhere)
    write_models(run, "wide__alpha", overwrite=True)
    assert (run / "models" / "wide__alpha" / "fold0.keras").read_text() == "wide__alpha"
    assert [path.name for path in elsewhere.iterdir()] == ["mine"]
    write_models(run, overwrite=True)
    (run / "models").write_text("a file")
    write_models(run, "wide__beta", overwrite=True)
    assert [path.name for path in (run / "models").iterdir()] == ["wide__beta"]


def test_an_earlier_run_is_refused_without_overwrite(tmp_path):
    write_run(tmp_path / "run", "1")
    with pytest.raises(InputError, match=r"holds a run already.*--overwrite"):
        write_run(tmp_path / "run", "2")
    assert (tmp_path / "run" / "run.json").read_text() == record("1")


def test_a_run_that_appears_meanwhile_is_not_replaced(tmp_path):
    write_run(tmp_path / "other", "1")
    with pytest.raises(InputError, match="holds a run already"), open_run(tmp_path / "run", False):
        (tmp_path / "other" / "run.json").rename(tmp_path / "run" / "run.json")
    assert files(tmp_path / "run") == {"run.json": record("1")}


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_that_is_no_run_is_refused(tmp_path, overwrite):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "metrics.csv").write_text("mine")
    with pytest.raises(InputError, match="is not empty and is not a run"):
        write_run(tmp_path / "photos", "1", overwrite=overwrite)
    assert [p.name for p in (tmp_path / "photos").iterdir()] == ["metrics.csv"]
    assert (tmp_path / "photos" / "metrics.csv").read_text() == "mine"


@pytest.mark.parametrize("text", ['{"mlflow": 1}', "{}", "", '{"final_model": "x.pt", "format": 2}'])
def test_the_record_of_another_program_makes_no_run(tmp_path, text):
    put(tmp_path, "run.json", "models/my.pt", "figures/paper.pdf", text=text)
    with pytest.raises(InputError, match=r"is not a run \(run.json was not written by Headbank\)"):
        write_run(tmp_path, "1", overwrite=True)
    assert files(tmp_path) == dict.fromkeys(("run.json", "models/my.pt", "figures/paper.pdf"), text)


def test_a_damaged_run_is_replaced(tmp_path):
    put(tmp_path, "run.json", text=record("1")[:-1])
    write_run(tmp_path, "2", overwrite=True)
    assert files(tmp_path) == {"metrics.csv": "2", "run.json": record("2")}


def test_a_file_in_the_way_is_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="is not a folder"):
        write_run(tmp_path / "file", "1", overwrite=True)
    with pytest.raises(InputError, match="cannot be locked"):
        write_run(tmp_path / "file" / "run", "1")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_run_killed_while_it_is_replaced_has_no_record_and_can_be_replaced(tmp_path, monkeypatch):
    write_run(tmp_path / "run", "1")
    replace = Path.replace

    def killed(path, target):
        if path.name == "metrics.csv":
            raise KeyboardInterrupt
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write_run(tmp_path / "run", "2", overwrite=True)
    monkeypatch.undo()
    assert not (tmp_path / "run" / "run.json").exists()
    with pytest.raises(InputError, match="--overwrite"):
        write_run(tmp_path / "run", "3")
    write_run(tmp_path / "run", "3", overwrite=True)
    assert (tmp_path / "run" / "metrics.csv").read_text() == "3"
    assert (tmp_path / "run" / "run.json").exists()
    assert not (tmp_path / "run" / ".replacing").exists()


def test_two_processes_do_not_write_one_run(tmp_path):
    with open_run(tmp_path / "run", False), pytest.raises(InputError, match="is being worked on by process"):
        write_run(tmp_path / "run", "1")
    assert list(tmp_path.iterdir()) == []


def test_the_lock_lies_in_the_runs_folder_and_goes_with_it(tmp_path):
    with hold_run(tmp_path / "run"):
        assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "run").mkdir()  # a person's own
    with hold_run(tmp_path / "run"):
        pass
    assert list((tmp_path / "run").iterdir()) == []


def test_a_file_is_given_once_its_bytes_are_those_of_the_seal(tmp_path):
    put(tmp_path, "metrics.csv", "models/a/fold0.skops", "notes.txt", text="1")
    seal(tmp_path, {"labels": ("a", "b"), "rows": {3: 1, 20: 2}})
    run = SealedRun.open(tmp_path)
    assert sorted(run.record["files"]) == ["metrics.csv", "models/a/fold0.skops"]
    assert run.holds("metrics.csv")
    assert not run.holds("curves.csv")
    assert run.file("models/a/fold0.skops") == tmp_path / "models" / "a" / "fold0.skops"
    put(tmp_path, "models/a/fold0.skops", text="2")
    with pytest.raises(
        InputError, match=r"models/a/fold0\.skops was changed by hand, or is damaged\. Put the original"
    ):
        run.file("models/a/fold0.skops")
    (tmp_path / "metrics.csv").unlink()
    with pytest.raises(InputError, match=r"metrics\.csv is missing\. Put the original back, or make the run again"):
        run.file("metrics.csv")
    with pytest.raises(InputError, match=r"notes\.txt was changed by hand"):
        run.file("notes.txt")
