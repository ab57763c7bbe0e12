"""Bytes become pixels.

- `files`: the bytes of files, which may hold several images.
- `reading`: how pixels are read, as options and recipes say it.
- `header`: what a file's header says.
- `heic`: HEIC files.
- `checksums`: damage that the checksums of a file tell of.
- `decoding`: the bytes of one file become uint8 pixels, and facts of the image.
- `memory`: failures to allocate.
- `survey`: the values of the 16-bit images of a data set.
- `resizing`: pixels of the size that a backbone takes; thumbnails.
"""
