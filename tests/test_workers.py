"""The suite itself: the tests of a file run on one worker, so that what they share is made once."""

import pytest


@pytest.mark.parametrize("number", range(8))
def test_a_file_runs_on_one_worker(number, tmp_path_factory, worker_id, testrun_uid):
    folder = tmp_path_factory.getbasetemp().parent / f"workers-{testrun_uid}"
    folder.mkdir(exist_ok=True)
    (folder / worker_id).touch()
    assert [path.name for path in folder.iterdir()] == [worker_id]
