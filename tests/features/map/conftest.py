"""A small cache of three clusters, with a data set, hostile names and pictures; a run of it is faked."""

import base64
import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from features.common.files import digest_file
from features.map.thumbnails import Thumbnails
from features.store.parts import Rows
from features.store.run_labels import OUT_OF_FOLD, RUN_LABELS, RunLabels, write_run_labels
from tests.features.dataset.written import make
from tests.features.store.caches import digest_of_image, facts_of, write_rows

HOSTILE = "x<img src=x onerror=alert(1)>"
HOSTILE_GROUP = "</script><script>alert(2)</script>"
LABELS = ("bleed", "<b>calc</b>")
TRAIN = (*(f"t{number:03d}" for number in range(119)), HOSTILE)
TEST = tuple(f"e{number:03d}" for number in range(30))


@dataclass(frozen=True)
class Clustered:
    """Where things lie, and the features and the cluster of each image."""

    data: Path
    cache: Path
    run: Path
    features: dict[str, np.ndarray]
    cluster: dict[str, int]
    probabilities: np.ndarray


def picture(level: int) -> bytes:
    """A small WebP."""
    return bytes(cv2.imencode(".webp", np.full((20, 16, 3), level, np.uint8))[1])


@pytest.fixture(scope="package")
def clustered(tmp_path_factory) -> Clustered:
    root = tmp_path_factory.mktemp("clustered")
    rng = np.random.default_rng(0)
    middles = 4 * rng.normal(size=(3, 24))
    cluster = {i: number % 3 for number, i in enumerate((*TRAIN, *TEST))}
    features = {i: (middles[own] + rng.normal(size=24)).astype(np.float32) for i, own in cluster.items()}
    data, cache, run = root / "data", root / "cache", root / "run"
    labels = np.array([[cluster[i] == 0, cluster[i] == 1] for i in TRAIN], np.uint8)
    groups = np.array([HOSTILE_GROUP if number < 4 else f"p{number // 4}" for number in range(len(TRAIN))])
    # `/` cannot be in a file's name: the hostile id has none.
    make(data, test=" ".join(f"{i}.png" for i in TEST))
    (data / "train").mkdir()
    for image_id in TRAIN:
        (data / "train" / f"{image_id}.png").touch()
    table = pd.DataFrame({"ID": TRAIN, **dict(zip(LABELS, labels.T, strict=True)), "patient": groups})
    table.to_csv(data / "train.csv", index=False)
    for split, ids in (("train", TRAIN), ("test", TEST)):
        digests = tuple(map(digest_of_image, ids))
        rows = np.stack([features[i] for i in ids])[:, None]
        write_rows(cache, Rows(ids, digests, rows, tuple(map(facts_of, ids))), split)
    drawn = {digest_of_image(i): picture(number) for number, i in enumerate(TRAIN[:60])}
    Thumbnails(cache, "train").add(drawn)
    Thumbnails(cache, "train").add({digest_of_image(HOSTILE): picture(200)})
    run.mkdir()
    known = RunLabels(TRAIN, groups, np.arange(len(TRAIN)) % 5, labels, np.full(len(TRAIN), "train"))
    write_run_labels(run, LABELS, {"train": known})
    probabilities = rng.random((len(TRAIN), 2)).astype(np.float32)
    tables = []
    for model, own in (("other", 1 - probabilities), ("best", probabilities)):
        table = pd.DataFrame(own, columns=LABELS)
        table.insert(0, "ID", TRAIN)
        table.insert(1, "model", model)
        table.insert(2, "fold", 0)
        tables.append(table)
    pd.concat(tables).to_csv(run / OUT_OF_FOLD, index=False)
    files = {name: digest_file(run / name).hex() for name in (RUN_LABELS, OUT_OF_FOLD)}
    (run / "run.json").write_text(json.dumps({"final_model": "best", "labels": LABELS, "files": files}))
    return Clustered(data, cache, run, features, cluster, probabilities)


def embedded_of(page: str) -> dict:
    """What a page holds for its script."""
    return json.loads(page.partition('id="embedded">')[2].partition("</script>")[0])


def decode_picture(text: str) -> int:
    """The grey level of a picture of the page."""
    content = np.frombuffer(base64.b64decode(text), np.uint8)
    levels = cv2.imdecode(content, cv2.IMREAD_GRAYSCALE)
    assert levels is not None
    return int(levels.mean())
