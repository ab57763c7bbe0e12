"""ONNX Runtime: opens an .onnx file, and computes features with it. Importing this module imports ONNX Runtime."""

from pathlib import Path

import numpy as np
import onnxruntime

from extract.backbones.onnx_model import Sidecar
from extract.backbones.pooling import pool_tokens
from extract.runtime import CPU_BATCH, GPU_BATCH, cores, fill_up
from features.common.errors import InputError

#: The number of axes of an output, by how it is pooled.
_AXES = {"none": 2, "avg": 4, "cls": 3, "mean": 3, "cls+mean": 3}
_DTYPES = {"tensor(uint8)": np.uint8, "tensor(float)": np.float32}


class OnnxExtractor:
    """An opened model.

    Args:
        path: the .onnx file, with its weights.
        sidecar: how images enter it and features leave it.
        batch_size: images a batch; None: by the device. A model of a fixed batch keeps its own.

    Attributes:
        batch_size: images a batch.
        device: `CPU`, or `CUDA`.
        engine: `onnxruntime`.

    Raises:
        InputError: the file does not open, or does not do what its sidecar says.
    """

    def __init__(self, path: Path, sidecar: Sidecar, batch_size: int | None) -> None:
        self._path, self._sidecar = path, sidecar
        self.engine = "onnxruntime"
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = cores()
        settings.log_severity_level = 3  # errors, which are raised as well
        wanted = ("CUDAExecutionProvider", "CPUExecutionProvider")
        providers = [name for name in wanted if name in onnxruntime.get_available_providers()]
        try:
            self._session = onnxruntime.InferenceSession(path.read_bytes(), settings, providers=providers)
        except Exception as error:  # noqa: BLE001 - its classes share no base but this one
            raise InputError(f"{path} cannot be opened by ONNX Runtime: {_first_line(error)}") from None
        self.device = "CUDA" if "CUDAExecutionProvider" in self._session.get_providers() else "CPU"
        self._positions = (2, 3) if sidecar.layout == "NCHW" else (1, 2)
        self._check_input()
        self._output = self._choose_output()
        fixed = self._session.get_inputs()[0].shape[0]
        chosen = batch_size or (CPU_BATCH if self.device == "CPU" else GPU_BATCH)
        self.batch_size = fixed if isinstance(fixed, int) else chosen

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, ...]:
        """Compute features.

        Args:
            images: uint8 (n, S, S, 3), RGB, 0-255.

        Returns:
            One array, float32 (n, D).

        Raises:
            InputError: the model fails, or its output is not what its sidecar says.
        """
        rows = []
        for start in range(0, len(images), self.batch_size):
            batch = images[start : start + self.batch_size]
            # A short batch is filled up, so that a row does not depend on how many are computed with it.
            rows.append(self._pool(self._run(fill_up(batch, self.batch_size)))[: len(batch)])
        return (np.concatenate(rows),)

    def _check_input(self) -> None:
        """Refuse a model that takes anything else than the images of its sidecar."""
        inputs, sidecar = self._session.get_inputs(), self._sidecar
        if len(inputs) != 1:
            names = ", ".join(entry.name for entry in inputs)
            raise InputError(f"{self._path} takes {len(inputs)} inputs ({names}); a backbone takes images alone.")
        (entry,) = inputs
        size = sidecar.size
        wanted = (3, size, size) if sidecar.layout == "NCHW" else (size, size, 3)
        sides = entry.shape[1:]
        if len(sides) != 3 or any(isinstance(a, int) and a != b for a, b in zip(sides, wanted, strict=True)):
            raise InputError(
                f"{self._path} takes inputs of shape {tuple(entry.shape)}; its sidecar says {('N', *wanted)} "
                f"({sidecar.layout}). Correct size and layout in {self._path.with_suffix('.json')}."
            )
        if entry.type not in _DTYPES:
            raise InputError(f"{self._path} takes {entry.type}; a backbone takes tensor(float) or tensor(uint8).")
        self._dtype = _DTYPES[entry.type]
        if (self._dtype == np.float32) != (sidecar.mean is not None):
            remedy = "Leave mean and std out" if sidecar.mean else "Give mean and std, of pixels from 0 to 1"
            raise InputError(f"{self._path} takes {entry.type}. {remedy}: {self._path.with_suffix('.json')}.")

    def _choose_output(self) -> str:
        """Find the output that gives the features."""
        names = [entry.name for entry in self._session.get_outputs()]
        wanted = self._sidecar.output
        if wanted in names:
            return wanted
        if wanted or len(names) > 1:
            raise InputError(
                f"{self._path} has the outputs {', '.join(names)}; {self._path.with_suffix('.json')} names "
                f"{wanted!r}. Name one of them as output."
            )
        return names[0]

    def _run(self, images: np.ndarray) -> np.ndarray:
        """Run the model over a whole batch, uint8 (n, S, S, 3)."""
        sidecar = self._sidecar
        pixels = images
        if sidecar.mean is not None:
            mean, std = np.array(sidecar.mean, np.float32), np.array(sidecar.std, np.float32)
            pixels = (images.astype(np.float32) / np.float32(255) - mean) / std
        if sidecar.layout == "NCHW":
            pixels = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
        try:
            (output,) = self._session.run([self._output], {self._session.get_inputs()[0].name: pixels})
        except Exception as error:  # noqa: BLE001 - a foreign graph can fail anywhere inside ONNX Runtime
            raise InputError(
                f"{self._path} fails on {len(images)} images: {_first_line(error)} If memory is short, give a smaller "
                "--batch-size."
            ) from None
        return output

    def _pool(self, output: np.ndarray) -> np.ndarray:
        """Make rows, float32 (n, D), of what the model gives."""
        sidecar = self._sidecar
        if output.ndim != _AXES[sidecar.pooling] or not np.issubdtype(output.dtype, np.floating):
            raise InputError(
                f"{self._path} gives {self._output} as {output.dtype} {output.shape}, which pooling "
                f"{sidecar.pooling} does not fit. (N, D) takes none, maps avg, tokens (N, T, D) cls, mean or cls+mean: "
                f"{self._path.with_suffix('.json')}."
            )
        if len(output) != self.batch_size:
            raise InputError(
                f"{self._path} gives {self._output} as {output.shape} of {self.batch_size} images; the first axis is "
                "that of the images. Export it so."
            )
        if sidecar.pooling == "avg":
            first, second = (output.shape[axis] for axis in self._positions)
            if first != second:
                raise InputError(
                    f"{self._path} gives {self._output} as {output.shape}, no square maps in the layout "
                    f"{sidecar.layout} of its input. Export maps in that layout, or pool in the model."
                )
        output = output.astype(np.float32, copy=False)
        match sidecar.pooling:
            case "none":
                return output
            case "avg":
                return output.mean(axis=self._positions)
        if output.shape[1] <= sidecar.prefix_tokens:
            raise InputError(f"{self._path} gives {output.shape[1]} tokens, of which prefix_tokens leaves none.")
        return pool_tokens(np, output, sidecar.pooling, sidecar.prefix_tokens)


def _first_line(error: Exception) -> str:
    """What ONNX Runtime says, in a line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
