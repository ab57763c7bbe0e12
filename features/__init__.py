"""The contract between the two stages: the data set on disk, and the feature cache in HDF5."""
