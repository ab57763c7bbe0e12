"""Weights as named tensors, as PyTorch's world publishes them.

- `files`: read a file of any of the formats.
- `pytorch`: PyTorch's own two formats, without PyTorch, and without running what a file names.
- `safetensors`: the format of Hugging Face.
- `assign`: give tensors to the variables of a Keras model, by name.
"""
