"""The feature cache on disk: what a row is made by, parts while extracting, one HDF5 file per split and backbone."""
