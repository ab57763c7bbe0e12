"""The kinds of cases of scripts/torture.py, one module a kind, and what they share."""
