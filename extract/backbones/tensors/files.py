"""Read a file of named tensors: PyTorch's two formats, and safetensors."""

import hashlib
import re
from pathlib import Path

import numpy as np

from extract.backbones.tensors.pytorch import LEGACY_HEADER, ZIP_HEADER, read_legacy, read_zip
from extract.backbones.tensors.safetensors import read_safetensors
from features.common.errors import InputError, cause_of

_HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.pth?$")


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """Read a flat state dict: a file that `torch.save` wrote, of any version of PyTorch, or a .safetensors file.

    Args:
        path: the file. If its name ends with the start of its SHA-256, as in `resnet18-5c106cde.pth` (the custom of
            PyTorch's model zoo), the content is held to it.

    Returns:
        Tensor name -> array with the tensor's shape and dtype, in the order of the file. Tensors that share a storage
        in the file share memory.

    Raises:
        InputError: the file cannot be read, is damaged, has another format, or names anything beyond what a state dict
            of plain tensors needs; the message names the file, the reason and the remedy.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {cause_of(error)}") from None
    if path.suffix == ".safetensors":
        read = read_safetensors
    elif content.startswith(ZIP_HEADER):
        read = read_zip
    elif content.startswith(LEGACY_HEADER):
        read = read_legacy
    else:
        raise InputError(
            f"{path} is not a PyTorch checkpoint: it starts with {content[:16]!r}. Give a .pth file that torch.save "
            "wrote, or a file that ends in .safetensors."
        )
    promised = _HASH_IN_NAME.search(path.name)
    digest = hashlib.sha256(content).hexdigest()
    if promised and not digest.startswith(promised[1]):
        raise InputError(
            f"{path} is damaged: its SHA-256 is {digest}, which does not start with {promised[1]} as its name says. "
            "Download or install it again; if its name ends in a number that is not a digest, rename it."
        )
    try:
        return read(content)
    except (ValueError, OverflowError) as error:
        raise InputError(
            f"{path} is damaged, or not a flat state dict: {error}. Get it from its publisher again, or save "
            "model.state_dict() alone."
        ) from None
