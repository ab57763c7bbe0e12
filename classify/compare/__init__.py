"""Compare finished runs: what they score on the same images, how far apart they are, and in what they differ.

Reading order:

- `runs`: read the runs' final models, or one model of each, and join them by image id
- `differences`: paired differences from the first run on the same bootstrap draws; what was set otherwise
- `page`: the console's table, and compare.html
"""
