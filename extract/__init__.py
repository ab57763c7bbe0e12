"""Stage 1: images become pooled features. Knows Keras and OpenCV; never sees a label."""
