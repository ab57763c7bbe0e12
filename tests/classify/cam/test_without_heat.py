"""`python -m classify cam` of a final model without gradient: thumbnails, and why there is no heat."""

import json

import pandas as pd
import pytest

from tests.classify.cam.cam_runs import cam, write_maps
from tests.classify.test_run import run
from tests.classify.toy import make_toy


@pytest.mark.parametrize("baseline", ["knn", "prior"])
def test_a_final_model_without_gradient_has_thumbnails_without_heat(baseline, tmp_path):
    toy = make_toy(tmp_path)
    baselines = ("--baselines", f"logistic,{baseline}", "--select", "prior" if baseline == "prior" else "knn/all")
    code, said, out = run(toy, "run", "--preset", "none", "--folds", "2", *baselines, "--calibration", "platt")
    assert code == 0, said
    final = json.loads((out / "run.json").read_text())["final_model"]
    assert final.endswith("+platt")
    write_maps(toy, "train", toy.train_ids[:3])
    code, said = cam(out, "--model", final)
    assert code == 2
    assert f"{final} of {out} cannot be shown as heat maps: neither it nor a member of it has a gradient" in said
    assert not (out / "cam").exists()
    code, said = cam(out)
    assert code == 0, said
    assert f"3 thumbnails written to {out / 'cam'}, without heat: {final} of {out} cannot be shown as heat maps" in said
    assert "with --model: logistic/alpha, logistic/beta, logistic/all." in said
    assert {path.name for path in (out / "cam").iterdir()} == {"thumbnails", "images.csv", "boxes.csv", "cam.json"}
    assert list(pd.read_csv(out / "cam" / "images.csv")["ID"]) == toy.train_ids[:3]
    assert sorted(path.name for path in (out / "cam" / "thumbnails").iterdir()) == [f"0000{n}.png" for n in range(3)]
    assert (out / "cam" / "boxes.csv").read_text() == "split,ID,label,x0,y0,x1,y1,score,heat\n"
    record = json.loads((out / "cam" / "cam.json").read_text())
    assert (record["model"], record["members"], record["covered"]) == (final, {}, 0)
    assert list(record["left_out"]) == [final.removesuffix("+platt")]
    assert record["no_heat"].startswith(f"{final} of {out} cannot be shown as heat maps")
    assert cam(out, "--model", "logistic/all")[0] == 0
    assert (out / "cam" / "heat" / "2" / "00002.png").exists()
