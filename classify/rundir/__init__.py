"""The folder of a run: its files, who writes and who reads each."""
