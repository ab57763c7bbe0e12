"""Bytes become pixels.

- `reading`: how pixels are read, as options and recipes say it.
- `decoding`: the bytes of one file become uint8 pixels, and facts of the image.
- `resizing`: pixels of the size that a backbone takes; thumbnails.
"""
