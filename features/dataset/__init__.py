"""Read a person's data set: image ids, paths, labels and groups, joined by id."""
