"""What our extraction is compared with, each in a process of its own: `scripts/benchmark.py extract --against`."""

import logging
import multiprocessing
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.process import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from extract.backbones.build import FrozenBackbone
from extract.images.resizing import resize
from extract.runtime import cores
from features.common.errors import InputError
from features.common.keras_import import backend_name, import_keras, silent_stderr

#: Images a batch of Keras' own loop on a CPU: its default.
_KERAS_BATCH = 32
#: What timm calls the backbones of the table. It has no NASNetMobile.
TIMM = {
    "xception": "legacy_xception",
    "inceptionv3": "inception_v3",
    "resnet50": "resnet50",
    "vgg16": "vgg16",
    "vgg19": "vgg19",
    "inceptionresnetv2": "inception_resnet_v2",
    "efficientnetb2": "tf_efficientnet_b2",
    "resnet50v2": "resnetv2_50",
    "densenet121": "densenet121",
    "mobilenet": "mobilenetv1_100",
    "mobilenetv2": "mobilenetv2_100",
    "mobilenetv3large": "tf_mobilenetv3_large_100",
    "efficientnetv2b0": "tf_efficientnetv2_b0",
    "efficientnetv2s": "tf_efficientnetv2_s",
    "convnexttiny": "convnext_tiny",
    "efficientnet_lite0": "tf_efficientnet_lite0",
    "efficientnet_lite1": "tf_efficientnet_lite1",
    "efficientnet_lite2": "tf_efficientnet_lite2",
    "resnext50": "resnext50_32x4d",
}


class Setting(NamedTuple):
    """What a peer is opened with.

    Attributes:
        backbone: whose features it computes.
        images: how many files it will be given at a time.
        batch: how many of them our own way computes at a time.
        gpu: whether on a GPU.
    """

    backbone: FrozenBackbone
    images: int
    batch: int
    gpu: bool


#: From the files of images to their features, float32 (n, D).
Extraction = Callable[[Sequence[Path]], np.ndarray]
#: From batches of pixels, uint8 (b, S, S, 3), to their features, float32 (b, D) each.
Inference = Callable[[Iterable[np.ndarray]], list[np.ndarray]]


@dataclass(frozen=True)
class Peer:
    """A way from files to features other than ours.

    Attributes:
        title: what the table calls it.
        packages: what it needs.
        on_gpus: whether it is compared on GPUs too.
        open: makes it ready and warm; gives what extracts, and what is to be said of it.
    """

    title: str
    packages: tuple[str, ...]
    on_gpus: bool
    open: Callable[[Setting], tuple[Extraction, str]]


def missing_packages(name: str) -> list[str]:
    """The packages that a peer needs and that are not installed; Grain only where Keras does not run on TensorFlow."""
    needed = () if name == "keras" and backend_name() == "tensorflow" else PEERS[name].packages
    return [package for package in needed if find_spec(package) is None]


def check_peers(names: Sequence[str], backbones: Sequence[str], gpu: bool) -> None:
    """Refuse peers that cannot run here.

    Raises:
        InputError: a package is missing, a peer is not for GPUs, or it does not have a backbone.
    """
    for name in names:
        if missing := missing_packages(name):
            remedy = "Run scripts/test_backends.sh, then: .venv-backends/bin/python scripts/benchmark.py extract"
            if name == "keras":
                remedy = f"Keras on {backend_name()} reads images by it: pip install grain"
            raise InputError(
                f"--against {name} needs {', '.join(missing)}, not installed for {sys.executable}. {remedy}."
            )
        if gpu and not PEERS[name].on_gpus:
            raise InputError(f"--against {name} is for CPUs. Leave it out with --device gpu.")
        strange = [backbone for backbone in backbones if name != "keras" and backbone not in TIMM]
        if strange:
            raise InputError(f"--against {name}: timm has no {strange[0]}. Leave one of the two out.")


class PeerProcess:
    """A peer in a process of its own: ours changes how TensorFlow shares out the cores. A context manager.

    Args:
        name: a key of `PEERS`.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._process = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _start, (name,))

    def __enter__(self) -> "PeerProcess":
        """Start nothing: the process starts with the first call."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the process."""
        self._process.shutdown()

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function there."""
        return self._process.submit(function, *arguments).result()

    def open(self, backbones: Sequence[FrozenBackbone], images: int, batch: int, gpu: bool) -> str:
        """Make it ready for backbones, in the place of those before.

        Returns:
            What the table calls it.
        """
        settings = [Setting(backbone, images, batch, gpu) for backbone in backbones]
        return ", ".join([PEERS[self._name].title, *self.call(_open, self._name, settings)])

    def seconds(self, paths: Sequence[Path]) -> float:
        """Seconds from the files to the features of all its backbones on the disk, a pass for each."""
        return self.call(_time, paths)


#: What is open in this process: extractions, and the width of their features.
_OPENED: list[tuple[Extraction, int]] = []


def _start(name: str) -> None:
    """Let TensorFlow start as it does for anybody, so that our own code cannot set its threads any more."""
    if name == "keras":
        with silent_stderr():
            import keras

            keras.ops.zeros(1)
        # model.predict retraces for the last batch, and says so
        logging.getLogger("tensorflow").setLevel(logging.ERROR)


def _open(name: str, settings: Sequence[Setting]) -> list[str]:
    """Open a peer for each setting; return what is to be said of it, each once."""
    _OPENED.clear()
    notes: dict[str, None] = {}
    with silent_stderr():  # the exporters warn of what is to come
        for setting in settings:
            extraction, note = PEERS[name].open(setting)
            assert setting.backbone.architecture is not None
            _OPENED.append((extraction, setting.backbone.architecture.width))
            notes[note] = None
    return [note for note in notes if note]


def _time(paths: Sequence[Path]) -> float:
    """Time a pass of each extraction."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        for number, (extraction, width) in enumerate(_OPENED):
            features = extraction(paths)
            assert features.shape == (len(paths), width), features.shape
            np.save(Path(folder) / f"{number}.npy", features)
        return time.perf_counter() - start


def _open_keras(setting: Setting) -> tuple[Extraction, str]:
    """Keras: `image_dataset_from_directory`, `preprocess_input`, `model.predict`; warm for every shape of batch."""
    import keras

    backbone, model = setting.backbone, setting.backbone.build()
    side, batch = backbone.input_size, setting.batch if setting.gpu else _KERAS_BATCH
    model.predict(np.zeros((batch + setting.images % batch, side, side, 3)), batch_size=batch, verbose=0)

    def extract(paths: Sequence[Path]) -> np.ndarray:
        dataset = keras.utils.image_dataset_from_directory(
            paths[0].parent,
            labels=None,
            image_size=(side, side),
            batch_size=batch,
            shuffle=False,
            format="tf" if keras.backend.backend() == "tensorflow" else "grain",
            verbose=False,
        )
        return model.predict(dataset.map(_preprocess_input(backbone)), verbose=0)

    return extract, ""


def _preprocess_input(backbone: FrozenBackbone) -> Callable[[Any], Any]:
    """The function that comes with the backbone."""
    assert backbone.architecture is not None
    if backbone.architecture.embedded:
        return lambda batch: (batch - 127.0) / 128.0
    if not backbone.architecture.of_keras:
        return lambda batch: import_keras().applications.imagenet_utils.preprocess_input(batch, mode="torch")
    builder = getattr(import_keras().applications, backbone.architecture.builder)
    return sys.modules[builder.__module__].preprocess_input


def _open_onnxruntime(setting: Setting) -> tuple[Extraction, str]:
    """ONNX Runtime on the graph that PyTorch exports."""
    import onnxruntime
    import torch

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cores()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        example = (torch.from_numpy(_example(setting)),)
        torch.onnx.export(build_module(setting.backbone), example, path, dynamo=True, verbose=False)
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def infer(batches: Iterable[np.ndarray]) -> list[np.ndarray]:
        return [session.run(None, {name: pixels})[0] for pixels in batches]

    return _plain(setting, infer), ""


def _open_openvino(setting: Setting) -> tuple[Extraction, str]:
    """OpenVINO on the graph that it traces in PyTorch, set for throughput: it chooses streams, we keep all busy."""
    import openvino
    import torch

    example = _example(setting)
    model = openvino.convert_model(build_module(setting.backbone), example_input=torch.from_numpy(example))
    model.reshape(list(example.shape))
    settings = {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": cores()}
    compiled = openvino.Core().compile_model(model, "CPU", settings)
    free = [compiled.create_infer_request() for _ in range(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))]

    def infer(batches: Iterable[np.ndarray]) -> list[np.ndarray]:
        features: list[np.ndarray] = []
        running: deque[Any] = deque()

        def collect() -> None:
            request = running.popleft()
            request.wait()
            features.append(np.array(request.get_output_tensor(0).data))
            free.append(request)

        for pixels in batches:
            if not free:
                collect()
            request = free.pop()
            request.start_async([pixels])
            running.append(request)
        while running:
            collect()
        return features

    return _plain(setting, infer), ""


def _open_torch(setting: Setting) -> tuple[Extraction, str]:
    """PyTorch, channels last, in float32 without TF32 as ours; by torch.compile, or eager where that fails."""
    import torch
    import torch._inductor.config
    from torch._dynamo.exc import BackendCompilerFailed

    torch.set_num_threads(cores())
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch._inductor.config.freezing = True  # weights are constants, as in all others
    device = "cuda" if setting.gpu else "cpu"
    module = build_module(setting.backbone).to(device, memory_format=torch.channels_last)

    def infer_by(model: Callable[[Any], Any]) -> Inference:
        def infer(batches: Iterable[np.ndarray]) -> list[np.ndarray]:
            with torch.no_grad():
                # On a GPU only the last line waits for it.
                features = [model(torch.from_numpy(pixels).to(device)) for pixels in batches]
                return [rows.cpu().numpy() for rows in features]

        return infer

    try:
        infer = infer_by(torch.compile(module))
        infer([_example(setting)])  # compiles
    except BackendCompilerFailed as error:
        reason = str(error.inner_exception).strip().splitlines()[0][:40]
        return _plain(setting, infer_by(module)), f"eager, as torch.compile fails ({reason})"
    return _plain(setting, infer), "torch.compile"


def build_module(backbone: FrozenBackbone) -> Any:
    """Build the architecture of a backbone in PyTorch, with weights, biases and batch norms drawn by a seed.

    Returns:
        Module from uint8 (B, S, S, 3) to pooled features (B, D), for inference.
    """
    import timm
    import torch

    class Pooled(torch.nn.Module):
        """Scaling, maps, and their average: all in the graph."""

        def __init__(self, maps: Any) -> None:
            super().__init__()
            self.maps = maps

        def forward(self, images: Any) -> Any:
            """Compute features."""
            pixels = images.permute(0, 3, 1, 2).float() / 127.5 - 1
            return self.maps.forward_features(pixels).mean((2, 3))

    torch.manual_seed(0)
    model = timm.create_model(TIMM[backbone.name], pretrained=False)
    for module in model.modules():
        # Fresh ones are zeros and ones, which an optimiser may strike out.
        if isinstance(module, torch.nn.BatchNorm2d):
            for of_ones in (module.weight, module.running_var):
                torch.nn.init.uniform_(of_ones, 0.5, 1.5)
            for of_zeros in (module.bias, module.running_mean):
                torch.nn.init.normal_(of_zeros, 0, 0.1)
    return Pooled(model).eval()


def _example(setting: Setting) -> np.ndarray:
    """A batch, uint8 (b, S, S, 3)."""
    side = setting.backbone.input_size
    return np.zeros((setting.batch, side, side, 3), np.uint8)


def _plain(setting: Setting, infer: Inference) -> Extraction:
    """A plain loop: as many threads as there are cores decode ahead with OpenCV; another infers, batch by batch.

    Args:
        setting: the size and the batch; a short batch is filled up, so that there is one shape.
        infer: what computes; warm when this returns.
    """
    infer([_example(setting)])

    def extract(paths: Sequence[Path]) -> np.ndarray:
        cv2.setNumThreads(1)  # there is a thread for every core already
        with ThreadPoolExecutor(cores()) as threads:
            images = threads.map(partial(_read, setting.backbone.input_size), paths)
            return np.concatenate(infer(_batches(images, setting.batch)))[: len(paths)]

    return extract


def _read(side: int, path: Path) -> np.ndarray:
    """Read an image, uint8 (S, S, 3), RGB, resized as ours are."""
    pixels = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
    assert pixels is not None, path
    return resize(pixels, side)


def _batches(images: Iterator[np.ndarray], batch: int) -> Iterator[np.ndarray]:
    """Put images into batches, uint8 (b, S, S, 3); the last one repeats its last image."""
    while chunk := list(islice(images, batch)):
        yield np.stack(chunk + chunk[-1:] * (batch - len(chunk)))


_OF_TIMM = ("torch", "timm")
#: By the name that --against takes.
PEERS = {
    "keras": Peer("Keras' own loop", ("grain",), True, _open_keras),  # not on TensorFlow
    "onnxruntime": Peer("ONNX Runtime", (*_OF_TIMM, "onnxscript", "onnxruntime"), False, _open_onnxruntime),
    "openvino": Peer("OpenVINO alone", (*_OF_TIMM, "openvino"), False, _open_openvino),
    "torch": Peer("PyTorch, channels last", _OF_TIMM, True, _open_torch),
}
