"""What every room uses: the one error of bad input, the frame of a command line, files, text, imports of Keras, Ray."""
