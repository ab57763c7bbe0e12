"""Score predictions: metrics and their intervals, thresholds, selection, what a backbone or a leak is worth."""
