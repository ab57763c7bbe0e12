"""Turn a frozen backbone into the fastest function on this device: uint8 pixels in, float32 features out.

The one place that knows Keras' backend.
"""

import ctypes
import gc
import logging
import math
import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from extract.engines.table import OPENVINO
from features.common.errors import InputError
from features.common.keras_import import import_keras

if TYPE_CHECKING:
    import keras

logger = logging.getLogger(__name__)

#: Images a batch at first, halved when out of memory; on a CPU, for each of the batches computed at a time.
CPU_BATCH, GPU_BATCH = 4, 256
#: Images a batch for each stream of OpenVINO, which takes them one by one; the streams wait for one another at its end.
_STREAM_BATCH = 8
#: Batches that a CPU computes at a time, at most: each holds its own feature maps, half a GB for VGG16 (measured).
_BATCHES_AT_A_TIME = 4
#: By how many standard deviations of the features an engine may miss TensorFlow's; rounding misses them by some 2e-5.
_SAME = 1e-4
#: Mean and deviation of ImageNet's RGB pixels of 0 to 1, and mean of its BGR pixels of 0 to 255.
_TORCH, _CAFFE = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), (103.939, 116.779, 123.68)
#: Where a loaded NVIDIA driver says its version.
_DRIVER = Path("/proc/driver/nvidia/version")


def cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0))


def split_cores() -> None:
    """Give each operation of TensorFlow on a CPU few cores, so that several batches are computed at a time.

    Call it before TensorFlow computes anything. Small operations do not fill all cores, and each waits for the slowest.
    Threads that the user set in the environment stay.
    """
    chosen = "TF_NUM_INTRAOP_THREADS" in os.environ
    if chosen or import_keras().backend.backend() != "tensorflow" or device_name() != "CPU":
        return
    import tensorflow as tf

    try:
        tf.config.threading.set_intra_op_parallelism_threads(-(-cores() // _BATCHES_AT_A_TIME))
    except RuntimeError:
        logger.info("TensorFlow runs already; it keeps all cores for each operation")


def batches_at_a_time() -> int:
    """How many batches an extractor computes at a time: 1 unless `split_cores` gave every operation few cores."""
    split_cores()
    if import_keras().backend.backend() != "tensorflow":
        return 1
    import tensorflow as tf

    threads = tf.config.threading.get_intra_op_parallelism_threads()
    return max(1, cores() // threads) if threads else 1


def device_name() -> str:
    """What the features are computed on: the GPU's name as its driver gives it, or `CPU`."""
    match import_keras().backend.backend():
        case "tensorflow":
            import tensorflow as tf

            gpus = tf.config.list_physical_devices("GPU")
            return tf.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU") if gpus else "CPU"
        case "jax":
            import jax

            return "CPU" if jax.default_backend() == "cpu" else jax.devices()[0].device_kind
        case "torch":
            import torch

            return torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
        case other:
            raise InputError(
                f"the Keras backend {other!r} is not supported. Set KERAS_BACKEND to tensorflow, jax or torch."
            )


def default_batch_size(device: str) -> int:
    """Images a batch on a device, named as `device_name` does."""
    return CPU_BATCH * batches_at_a_time() if device == "CPU" else GPU_BATCH


def missing_gpu() -> str:
    """Say why TensorFlow, which found no GPU, did not, and the remedy; empty where nothing suggests that one is there.

    An NVIDIA driver suggests it, and so do NVIDIA's packages, which `scripts/setup.sh --gpu` installs.
    """
    packages = find_spec("nvidia") is not None
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    if hidden or import_keras().backend.backend() != "tensorflow" or not (packages or _DRIVER.is_file()):
        return ""
    if not _DRIVER.is_file():
        return "no NVIDIA driver is loaded. Install driver 525.60.13 or later, or start the container with its GPUs"
    version = re.search(r"\d{3}\.[\d.]+", _DRIVER.read_text(encoding="utf-8"))
    driver = f"the NVIDIA driver {version.group() if version else 'of unknown version'} is loaded, but"
    if not packages:
        return f"{driver} CUDA is not installed. Run scripts/setup.sh --gpu"
    return f"{driver} TensorFlow finds no GPU by it. It needs 525.60.13 or later, and a GPU that nvidia-smi lists"


class Extractor:
    """A compiled backbone.

    Args:
        build: makes the model, (B, S, S, 3) preprocessed pixels -> features (B, D), or a list of several such arrays;
            called again when the batch is halved, so that nothing is kept that is compiled.
        preprocessing: a key of `extract.backbones.table.PREPROCESSING`.
        input_size: S, in pixels.
        batch_size: images a batch, rounded up to a multiple of those computed at a time; None: by device and engine.
        proof: uint8 (n, S, S, 3), on which OpenVINO proves itself first; without it Keras' backend computes.

    Attributes:
        batch_size: images a batch; halved when the device runs out of memory.
        engine: what computes: `openvino` if it gives the features of TensorFlow, else Keras' backend.
        device: its name.
    """

    def __init__(
        self,
        build: Callable[[], "keras.Model"],
        preprocessing: str,
        input_size: int,
        batch_size: int | None,
        proof: np.ndarray | None = None,
    ) -> None:
        split_cores()
        self.device = device_name()
        self._asked = batch_size
        self.engine = import_keras().backend.backend()
        self._proof = proof
        self._build = build
        self._preprocessing = preprocessing
        self._input_size = input_size
        self.batch_size = self._choose_batch()
        self._function = self._compile()
        trim_memory()

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, ...]:
        """Compute features.

        Args:
            images: uint8 (n, S, S, 3), RGB, 0-255; n is at most the batch size that the extractor began with.

        Returns:
            float32 (n, D) for each output of the model.

        Raises:
            InputError: the device has too little memory even for one image.
        """
        batches: list[list[np.ndarray]] = []
        start = 0
        while start < len(images):
            batch = images[start : start + self.batch_size]
            try:
                outputs = self._function(batch)
                batches.append([np.asarray(output, np.float32)[: len(batch)] for output in outputs])
            except Exception as error:
                if not _is_out_of_memory(error):
                    raise
                # OpenVINO's streams take one image each, however many are in a batch.
                at_a_time = min(self.batch_size, cores()) if self.engine == OPENVINO else self.batch_size
                if at_a_time == 1:
                    raise InputError(
                        f"the device ran out of memory on a batch of one image of {self._input_size} pixels. "
                        f"Close other programs on it, or set CUDA_VISIBLE_DEVICES= to use the CPU."
                    ) from None
                self.batch_size = self._asked = at_a_time // 2
                logger.warning("out of memory: the batch size is cut to %d", self.batch_size)
                self._function = self._compile()
                continue
            start += len(batch)
        return _join(batches)

    def _choose_batch(self) -> int:
        """Choose the images a batch, by what was asked for and what computes."""
        if self._proof is None:
            parts, default = batches_at_a_time(), default_batch_size(self.device)
        else:
            parts, default = cores(), min(GPU_BATCH, _STREAM_BATCH * cores())
        return -(-(self._asked or default) // parts) * parts

    def _compile(self) -> Callable[[np.ndarray], Sequence[Any]]:
        """Compile the whole graph, the weights as constants where that is faster."""
        match import_keras().backend.backend():
            case "tensorflow":
                return self._compile_openvino() or self._fill_up(self._compile_tensorflow())
            case "jax":
                return self._fill_up(self._compile_jax())
            case _:
                return self._fill_up(self._compile_torch())

    def _fill_up(self, function: Callable[[np.ndarray], Sequence[Any]]) -> Callable[[np.ndarray], Sequence[Any]]:
        """Fill up short batches for a function: another shape would be traced and compiled again."""
        size = self.batch_size
        return lambda images: function(fill_up(images, size))

    def _graph(self, model: "keras.Model") -> Callable[..., list[Any]]:
        """The graph of preprocessing and a model: from its weights as values and images to its outputs."""

        def compute(trainable: list, non_trainable: list, images: Any) -> list[Any]:
            pixels = preprocess(images, self._preprocessing)
            features, _ = model.stateless_call(trainable, non_trainable, pixels, training=False)
            return import_keras().tree.flatten(features)

        return compute

    def _trace(self, model: "keras.Model", batch: int | None) -> Any:
        """Trace a function of TensorFlow for batches of one size, or of any: from uint8 (b, S, S, 3) to the outputs.

        Weights are constants, so that convolution, batch norm and activation fuse into one kernel. XLA is for GPUs
        only: on CPUs it halves the speed (docs/decisions.md).
        """
        import tensorflow as tf

        compute, weights = self._graph(model), _weights(model)
        return tf.function(
            lambda images: compute(*weights, images),
            input_signature=[tf.TensorSpec((batch, self._input_size, self._input_size, 3), tf.uint8)],
            jit_compile=bool(tf.config.list_physical_devices("GPU")),
            autograph=False,
        ).get_concrete_function()

    def _compile_tensorflow(self) -> Callable[[np.ndarray], Sequence[np.ndarray]]:
        """Compute a batch in parts at the same time."""
        import tensorflow as tf

        shards = math.gcd(self.batch_size, batches_at_a_time())  # of one size: another would be traced again
        function = self._trace(self._build(), self.batch_size // shards)

        def extract(shard: np.ndarray) -> list[np.ndarray]:
            return [output.numpy() for output in function(tf.constant(shard))]

        threads = ThreadPoolExecutor(shards, "shard")
        return lambda images: _join(list(threads.map(extract, np.split(images, shards))))

    def _compile_openvino(self) -> Callable[[np.ndarray], Sequence[np.ndarray]] | None:
        """Compile TensorFlow's graph by OpenVINO; None, with a warning, where that fails or gives other features."""
        if self._proof is None:
            return None
        model = self._build()
        # Not by the traced function: TensorFlow copies all weights before it runs one.
        expected = self._graph(model)(*_weights(model), self._proof)
        function = self._trace(model, None)
        del model  # each copy of the weights counts
        try:
            from extract.engines.openvino import compile_graph

            compiled = compile_graph(function, self._input_size, min(cores(), self.batch_size))
            found = compiled(self._proof)
        except Exception as error:
            if _is_out_of_memory(error):
                raise
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        else:
            gap = max(_gap(output.numpy(), rows) for output, rows in zip(expected, found, strict=True))
            if gap <= _SAME:  # which what is not a number is not
                self.engine = OPENVINO
                return compiled
            reason = f"its features differ by {gap:.1e} standard deviations"
        logger.warning("OpenVINO is left out: %s. TensorFlow computes, which takes longer", reason)
        self._proof = None
        self.batch_size = self._choose_batch()
        return None

    def _compile_jax(self) -> Callable[[np.ndarray], Sequence[Any]]:
        """Weights as arguments that stay on the device: as constants they would make XLA's compilation crawl."""
        import jax

        model = self._build()
        weights = jax.device_put(_weights(model))
        function = jax.jit(self._graph(model))
        return lambda images: function(*weights, images)

    def _compile_torch(self) -> Callable[[np.ndarray], Sequence[np.ndarray]]:
        """No gradients, no graph: eager kernels on the model's device."""
        import torch

        keras, model = import_keras(), self._build()

        def extract(images: np.ndarray) -> list[np.ndarray]:
            with torch.inference_mode():
                pixels = preprocess(keras.ops.convert_to_tensor(images), self._preprocessing)
                features = keras.tree.flatten(model(pixels, training=False))
                return [output.float().cpu().numpy() for output in features]

        return extract


def fill_up(images: np.ndarray, size: int) -> np.ndarray:
    """Fill up a short batch with its last image: (n, S, S, 3) to (size, S, S, 3)."""
    missing = np.repeat(images[-1:], size - len(images), axis=0)
    return np.concatenate([images, missing]) if len(missing) else images


def trim_memory() -> None:
    """Give freed memory back to the system: models are cycles, and glibc keeps what each thread has freed.

    Three backbones compiled one after the other left 2.2 GB of it.
    """
    gc.collect()
    with suppress(OSError, AttributeError):  # another C library has no such function
        ctypes.CDLL(None).malloc_trim(0)


def _weights(model: "keras.Model") -> tuple[list[np.ndarray], list[np.ndarray]]:
    """A model's weights as numpy arrays: trainable, non-trainable."""
    to_numpy = import_keras().ops.convert_to_numpy
    trainable, non_trainable = model.trainable_variables, model.non_trainable_variables
    return [to_numpy(variable) for variable in trainable], [to_numpy(variable) for variable in non_trainable]


def _gap(expected: np.ndarray, found: np.ndarray) -> float:
    """The largest difference of two arrays of features, in standard deviations of the first; 0 where they are equal."""
    if np.array_equal(expected, found):
        return 0.0
    deviation = float(np.std(expected))
    return float(np.abs(expected - found).max()) / deviation if deviation else math.inf


def _join(batches: Sequence[Sequence[np.ndarray]]) -> tuple[np.ndarray, ...]:
    """Put the outputs of several batches, each (n, D), behind one another, output by output."""
    return tuple(np.concatenate(outputs) for outputs in zip(*batches, strict=True))


def preprocess(images: Any, preprocessing: str) -> Any:
    """Scale pixels as the backbone was trained, inside its graph.

    Args:
        images: uint8 tensor (B, S, S, 3), RGB, 0-255.
        preprocessing: a key of `extract.backbones.table.PREPROCESSING`.

    Returns:
        float32 tensor (B, S, S, 3).
    """
    keras = import_keras()
    pixels = keras.ops.cast(images, "float32")
    match preprocessing:
        case "model":
            return pixels
        case "lite":
            return (pixels - 127.0) / 128.0  # TensorFlow's EfficientNet-Lite: mean 127, deviation 128
        # As keras.applications.imagenet_utils does, whose constants a graph of a model does not hold.
        case "tf":
            return pixels / 127.5 - 1.0
        case "torch":
            mean, deviation = (np.array(values, np.float32) for values in _TORCH)
            return (pixels / 255.0 - mean) / deviation
        case "caffe":
            return keras.ops.flip(pixels, axis=-1) - np.array(_CAFFE, np.float32)
    raise AssertionError(preprocessing)


def _is_out_of_memory(error: Exception) -> bool:
    """Whether an exception means that memory ran out: the backends share no class, but these words."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ in ("ResourceExhaustedError", "OutOfMemoryError")
        or any(words in str(error) for words in ("RESOURCE_EXHAUSTED", "bad_alloc"))
    )
