"""Seeded tensors for ResNeXt-50 (32x4d), under the names and with the shapes that torchvision gives them."""

import numpy as np

LAYERS = {"layer1": (3, 64, 128), "layer2": (4, 256, 256), "layer3": (6, 512, 512), "layer4": (3, 1024, 1024)}


def draw_tensors() -> dict[str, np.ndarray]:
    """Draw all tensors but the counters of batches: float32, the running variances and scales positive."""
    shapes: dict[str, tuple[int, ...]] = {"conv1.weight": (64, 3, 7, 7), "bn1": (64,)}
    for layer, (blocks, entering, width) in LAYERS.items():
        for block in range(blocks):
            here = f"{layer}.{block}"
            shapes[f"{here}.conv1.weight"] = (width, entering if block == 0 else 2 * width, 1, 1)
            shapes[f"{here}.conv2.weight"] = (width, width // 32, 3, 3)
            shapes[f"{here}.conv3.weight"] = (2 * width, width, 1, 1)
            shapes |= {f"{here}.bn1": (width,), f"{here}.bn2": (width,), f"{here}.bn3": (2 * width,)}
            if block == 0:
                shapes |= {f"{here}.downsample.0.weight": (2 * width, entering, 1, 1)}
                shapes |= {f"{here}.downsample.1": (2 * width,)}
    # RandomState: its stream never changes.
    random = np.random.RandomState(5)
    tensors = {}
    for name, shape in (shapes | {"fc.weight": (1000, 2048), "fc.bias": (1000,)}).items():
        if name.endswith("weight"):
            reach = (6 / np.prod(shape[1:])) ** 0.5  # He et al. 2015
            tensors[name] = random.uniform(-reach, reach, shape).astype(np.float32)
        elif name == "fc.bias":
            tensors[name] = random.uniform(-1, 1, shape).astype(np.float32)
        else:
            ranges = {"weight": (0.5, 1.5), "bias": (-0.5, 0.5), "running_mean": (-0.5, 0.5), "running_var": (0.5, 2)}
            for part, (low, high) in ranges.items():
                tensors[f"{name}.{part}"] = random.uniform(low, high, shape).astype(np.float32)
    return tensors


def draw_image(size: int) -> np.ndarray:
    """Draw waves of three lengths: uint8 (size, size, 3), RGB."""
    y, x = np.mgrid[:size, :size].astype(np.int64)
    return np.stack([x * y % 256, (x * x + y) % 256, (3 * x + 5 * y) % 256], axis=-1).astype(np.uint8)
