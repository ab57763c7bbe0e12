"""Compile the steps of the bank, and keep them: `python -m classify.bank`, which scripts/setup.sh calls."""

from classify.bank.train import load_steps

if __name__ == "__main__":
    load_steps()
