"""OpenVINO on a CPU: compiles the graph that TensorFlow traced. Importing this module imports OpenVINO."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import openvino

#: float32 whatever the CPU offers: its own default is bfloat16 on some. Streams are not pinned to cores, as other
#: threads decode meanwhile.
_SETTINGS = {"INFERENCE_PRECISION_HINT": "f32", "ENABLE_CPU_PINNING": "NO"}


@cache
def _core() -> openvino.Core:
    """One for the whole process.

    Its CPU plugin gives the thread that makes it another stack for signals. When the last model goes, so do the plugin
    and that stack: if another thread let go of it, the next signal ends the process (OpenVINO 2026.4).
    """
    return openvino.Core()


def compile_graph(function: Any, size: int, streams: int) -> Callable[[np.ndarray], list[np.ndarray]]:
    """Compile a graph of TensorFlow for one image at a time.

    More at a time are no faster and take more memory (docs/decisions.md), and each row comes out the same alone.

    Args:
        function: a concrete function of one uint8 input and one or more outputs, its weights constants.
        size: S of the images, in pixels.
        streams: how many images are computed at a time, each by a thread of its own.

    Returns:
        Function from uint8 (n, S, S, 3) to the outputs in their order, each float32 (n, D).
    """
    converted = openvino.convert_model(function)
    # Only the outputs that are asked for: conversion can leave others, which are computed too.
    count = len(function.outputs)
    results = [converted.output(tensor.name).get_node() for tensor in function.outputs]
    model = openvino.Model(results, converted.get_parameters())
    model.reshape([1, size, size, 3])
    settings = {**_SETTINGS, "NUM_STREAMS": streams, "INFERENCE_NUM_THREADS": streams}
    compiled = _core().compile_model(model, "CPU", settings)
    # A request for each stream, not OpenVINO's queue: that waits for ever when it is let go with its callbacks.
    free = [compiled.create_infer_request() for _ in range(streams)]
    threads = ThreadPoolExecutor(streams, "stream")

    def infer(image: np.ndarray) -> list[np.ndarray]:
        request = free.pop()
        found = request.infer([image])
        rows = [np.array(found[number], np.float32) for number in range(count)]
        free.append(request)
        return rows

    def extract(images: np.ndarray) -> list[np.ndarray]:
        rows = list(threads.map(infer, np.split(images, len(images))))
        compiled.release_memory()  # its maps: other backbones need theirs before it computes again
        return [np.concatenate(of_output) for of_output in zip(*rows, strict=True)]

    return extract
