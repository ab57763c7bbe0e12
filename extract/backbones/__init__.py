"""The frozen backbones: their table, their weights, and how one is built."""
