"""The feature cache on disk: one HDF5 file per split and backbone, and what is known of the images.

In reading order:
- recipe: every setting that decides the values of a row, their fingerprint, and the options that give them again.
- cache_file: one open file: mapped rows, checked block by block.
- cache: all files of a data set; a matrix by image ids; their verification; the default folder of a cache.
- images_table: images.csv and rejected.csv: what stage 1 saw of each image.
- parts: rows on disk while an extraction runs.
- assembly: one cache file from its predecessor and the parts.
- source: what a cache file was extracted from, for the commands that messages print.
- scan_groups: the groups of scans, where the data set gives none.
- gradients: what heat maps are drawn from.
- run_labels: the labels, groups and folds that a run keeps in its labels.csv.

A new attribute of the recipe is a field of `Recipe`; a new dataset of the file goes into `cache_file` and `assembly`.
"""
