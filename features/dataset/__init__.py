"""Read a person's data set: image ids, paths, labels and groups, joined by id; and list what is wrong with it.

Files, in reading order:

- `table`: the cells of a CSV file; faults, and how they are collected.
- `folder`: the images of a folder; what an image id is.
- `formats`: how a data set may give ids and labels. To add a label format, add it here, to `FORMATS`.
- `labels`: which columns are labels.
- `dataset`: all of it, with the groups: `read_dataset`, `read_images`, `read_with_faults`.
- `run_labels`: the labels, groups and folds that a run keeps in its labels.csv.
"""
