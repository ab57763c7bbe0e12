"""The engines that compute a frozen backbone, beside Keras' own backends.

- `table`: their names, and which one `--engine auto` takes.
- `openvino`: OpenVINO on CPUs, from the graph that TensorFlow traced.
- `onnx`: ONNX Runtime, for backbones that are .onnx files.
"""
