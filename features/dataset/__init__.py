"""Read a person's data set: image ids, paths, labels and groups, joined by id; and list what is wrong with it.

Files, in reading order:

- `table`: the cells of a CSV file; faults, and how they are collected.
- `folder`: the images of a folder; what an image id is.
- `formats`: how a data set may give ids and labels. To add a label format, add it here, to `FORMATS`.
- `labels`: which columns are labels.
- `groups`: which images belong together, such as those of a patient.
- `run_labels`: the labels, groups and folds that a run keeps in its labels.csv.
- `dataset`: all of it: `read_dataset`, `read_images`, `read_with_faults`.
"""
