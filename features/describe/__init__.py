"""Describe a data set in numbers, on a terminal and as one page.

Files, in reading order:

- `description`: the numbers of each split.
- `report`: what `python -m features describe` does: print them, and write `page.html` filled in.
"""
