"""Describe a data set in numbers, on a terminal and as one page."""
