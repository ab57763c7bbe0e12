"""Read a person's data set: image ids, paths, labels and groups, joined by id; and list what is wrong with it.

Files, in reading order:

- `faults`: what is wrong, what was understood, and how messages write cells.
- `table`: the cells of a table, in whatever dialect and encoding.
- `frames`: the images of one DICOM or NIfTI file.
- `folder`: the images of a folder; what an image id is.
- `ids`: which column names the images, and how its cells are joined with them.
- `formats`: how a table may give ids and labels. To add a label format, add it here, to `FORMATS`.
- `layout`: which folders and tables there are, and what images are for.
- `classes`: labels that are words: a column of classes, or folders.
- `labels`: which labels a data set has, and what to do with those that are not known.
- `groups`: patients, in columns, files or ids.
- `dataset`: all of it: `read_dataset`, `read_images`, `read_layout`, `read_with_faults`.
"""
