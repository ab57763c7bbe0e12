"""Write fields of protocol buffers, of which ONNX files are made, without the package protobuf."""


def varint_field(number: int, value: int) -> bytes:
    """Write a field, by its number, that holds an integer of 0 or more."""
    return _varint(number * 8) + _varint(value)


def bytes_field(number: int, value: bytes) -> bytes:
    """Write a field, by its number, that holds bytes: a text, an array, or a message."""
    return _varint(number * 8 + 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    """Write an integer of 0 or more, seven bits a byte, the lowest first."""
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])
