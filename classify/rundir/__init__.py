"""The folder of a run: its files, who writes and who reads each.

- `folder`: the files by name, how they become a run all at once, and the seal that proves them whole
- `files`: all files of a finished run: tables, models, and the record
- `record`: what the record says of how the run came about
- `schema`: what of it predictions need, whoever sealed it
- `tables`: those of them that are written as they are
- `saved_run`: a run that is loaded again, to predict with
- `console`: what a run prints; `LEADERBOARD` is the table of the leaderboard's columns
"""
