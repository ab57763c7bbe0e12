"""OpenVINO on a CPU: compiles the graph that TensorFlow traced. Importing this module imports OpenVINO."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import openvino

#: float32 whatever the CPU offers: its own default is bfloat16 on some. Streams are not pinned to cores, as other
#: threads decode meanwhile.
_SETTINGS = {"INFERENCE_PRECISION_HINT": "f32", "ENABLE_CPU_PINNING": "NO"}


def compile_graph(function: Any, shape: Sequence[int], streams: int) -> Callable[[np.ndarray], list[np.ndarray]]:
    """Compile a graph of TensorFlow.

    Args:
        function: a concrete function of one uint8 input and one or more outputs, its weights constants.
        shape: of the input that a stream takes, (b, S, S, 3).
        streams: how many inputs are computed at a time, each by a thread of its own.

    Returns:
        Function from uint8 (streams * b, S, S, 3) to the outputs in their order, each float32 (streams * b, D).
    """
    converted = openvino.convert_model(function)
    # Only the outputs that are asked for: conversion can leave others, which are computed too.
    count = len(function.outputs)
    results = [converted.output(tensor.name).get_node() for tensor in function.outputs]
    model = openvino.Model(results, converted.get_parameters())
    model.reshape(list(shape))
    settings = {**_SETTINGS, "NUM_STREAMS": streams, "INFERENCE_NUM_THREADS": streams}
    compiled = openvino.Core().compile_model(model, "CPU", settings)
    # A request for each stream, not OpenVINO's queue: that waits for ever when it is let go with its callbacks.
    requests = [compiled.create_infer_request() for _ in range(streams)]
    threads = ThreadPoolExecutor(streams, "stream")

    def infer(request: Any, shard: np.ndarray) -> list[np.ndarray]:
        found = request.infer([shard])
        return [np.array(found[number], np.float32) for number in range(count)]

    def extract(images: np.ndarray) -> list[np.ndarray]:
        shards = list(threads.map(infer, requests, np.split(images, streams)))
        compiled.release_memory()  # its maps: other backbones need theirs before it computes again
        return [np.concatenate(rows) for rows in zip(*shards, strict=True)]

    return extract
