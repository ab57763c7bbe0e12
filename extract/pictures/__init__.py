"""Pictures that stage 1 draws of images: where a model looks, and thumbnails."""
