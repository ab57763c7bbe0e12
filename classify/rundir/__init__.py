"""The folder of a run: its files, who writes and who reads each.

- `folder`: the files by name, how they become a run all at once, and the seal that proves them whole
- `tables`: every CSV file, written and read
- `record`: all of a finished run, and how it came about
- `saved_run`: a run that is loaded again, to predict with
- `console`: what a run prints; `LEADERBOARD` is the table of the leaderboard's columns
"""
