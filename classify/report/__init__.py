"""The report: one page that shows what a run's files hold. It computes nothing but how to show it.

- `page`: read the files, put the sections together, put the page in its place
- `run_files`: what the page shows of a run, read from its folder
- `data`, `models`, `labels`, `gallery`: a section each, with its figures
- `tables`: what a reader acts on
- `doubts`: what a reader has to distrust
- `plotting`: how numbers, names and figures look
- `template/`: the page's HTML, style and script, a file per section

A new section is a file here, a file in `template/` and a line in `page`. A column of the leaderboard is a row of
`LEADERBOARD` in `classify/rundir/console.py`.
"""
