"""Audit a cache for leaks: images that both sides of a split or a fold have, and groups on several sides.

Files, in reading order:

- `comparable`: the rows of a cache by which images can be compared.
- `near`: near duplicates, and how near images come by chance.
- `audit`: the images with their features, labels, groups and folds; what is found, and the groups that are proposed.
- `report`: what `python -m features audit` does, prints and writes.
"""
