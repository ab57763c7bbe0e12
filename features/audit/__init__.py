"""Look for leaks between the images of a data set: duplicates, near duplicates, groups on both sides."""
