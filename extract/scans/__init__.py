"""Scans: how DICOM files and NIfTI volumes become pixels.

- `windows`: the table of intensity windows, and what `--window` may say.
- `levels`: values to grey levels.
- `dicom`: one image of a DICOM file; `codecs` are decoders that pydicom does not bring, `libjpeg` hears of damage.
- `nifti`: one slice of a volume.
"""
