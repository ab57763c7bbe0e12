"""Models of other models' predictions: means, weights, greedy selection, stacking, calibration."""
