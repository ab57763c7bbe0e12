"""A run's folder is whole or absent, and nothing else is ever replaced."""

from pathlib import Path

import pytest

from classify.rundir.folder import FINISHED, open_run
from features.common.errors import InputError


def interrupt_run(run, error, overwrite=False, fit=None):
    with open_run(run, overwrite) as staging:
        (staging / "metrics.csv").write_text("half")
        if fit:
            (staging / FINISHED).mkdir()
            (staging / FINISHED / fit).write_text("a")
        raise error


def write_run(run, text, names=("metrics.csv", "run.json"), overwrite=False):
    with open_run(run, overwrite) as staging:
        for name in names:
            (staging / name).write_text(text)


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
    assert {p.name: p.read_text() for p in (tmp_path / "run").iterdir()} == {"metrics.csv": "1", "run.json": "1"}


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_interrupted_run_lends_its_finished_fits_to_the_next_and_publishes_none(tmp_path, error, overwrite):
    run = tmp_path / "run"
    if overwrite:
        write_run(run, "1")
    with pytest.raises(error):
        interrupt_run(run, error, overwrite, fit="a.npz")
    with open_run(run, overwrite) as staging:
        assert [p.name for p in staging.iterdir()] == [FINISHED]
        assert (staging / FINISHED / "a.npz").read_text() == "a"
        (staging / "run.json").write_text("2")
    assert {p.name: p.read_text() for p in run.iterdir()} == {"run.json": "2"}
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def test_what_a_killed_run_left_is_cleared_away(tmp_path):
    (tmp_path / ".run.partial").mkdir()
    (tmp_path / ".run.partial" / "metrics.csv").write_text("half")
    (tmp_path / "empty" / ".partial").mkdir(parents=True)
    write_run(tmp_path / "run", "1", names=("run.json",))
    write_run(tmp_path / "empty", "1", names=("run.json",))
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["run.json"]
    assert [p.name for p in (tmp_path / "empty").iterdir()] == ["run.json"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty", "run"]


def test_overwriting_replaces_a_runs_files_removes_stale_ones_and_keeps_others(tmp_path):
    run = tmp_path / "run"
    write_run(run, "1", names=("metrics.csv", "predictions_binary.csv", "run.json"))
    (run / FINISHED).mkdir()  # a person's own, of that name
    for name in ("notes.txt", "groups.csv"):  # the groups may be what the new run is made by
        (run / name).write_text("mine")
    for name in ("audit.json", "duplicates.csv"):  # of folds that are no more
        (run / name).write_text("stale")
    write_run(run, "2", overwrite=True)
    (run / FINISHED).rmdir()
    kept = {"metrics.csv": "2", "run.json": "2", "notes.txt": "mine", "groups.csv": "mine"}
    assert {p.name: p.read_text() for p in run.iterdir()} == kept


def write_models(run, *names, overwrite=False):
    with open_run(run, overwrite) as staging:
        for name in names:
            (staging / "models" / name).mkdir(parents=True)
            (staging / "models" / name / "fold0.keras").write_text(name)
        (staging / "run.json").write_text("")


def test_overwriting_replaces_the_models_whole_or_takes_them_away(tmp_path):
    run = tmp_path / "run"

    def files():
        return sorted(str(path.relative_to(run)) for path in run.rglob("*") if path.is_file())

    write_models(run, "linear__alpha", "linear__beta")
    assert files() == ["models/linear__alpha/fold0.keras", "models/linear__beta/fold0.keras", "run.json"]
    write_models(run, "wide__alpha", overwrite=True)
    assert files() == ["models/wide__alpha/fold0.keras", "run.json"]
    write_models(run, overwrite=True)
    assert files() == ["run.json"]
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
    assert (tmp_path / "run" / "run.json").read_text() == "1"


def test_a_run_that_appears_meanwhile_is_not_replaced(tmp_path):
    write_run(tmp_path / "other", "1")
    with pytest.raises(InputError, match="holds a run already"), open_run(tmp_path / "run", False):
        (tmp_path / "other").rename(tmp_path / "run")
    assert (tmp_path / "run" / "run.json").read_text() == "1"


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_that_is_no_run_is_refused(tmp_path, overwrite):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "metrics.csv").write_text("mine")
    with pytest.raises(InputError, match="is not empty and is no run"):
        write_run(tmp_path / "photos", "1", overwrite=overwrite)
    assert [p.name for p in (tmp_path / "photos").iterdir()] == ["metrics.csv"]
    assert (tmp_path / "photos" / "metrics.csv").read_text() == "mine"


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
    assert not (tmp_path / ".run.lock").exists()
