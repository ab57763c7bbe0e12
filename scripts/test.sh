#!/usr/bin/env bash
# Set up, then check style and types and run the tests. Usage: scripts/test.sh [pytest options]
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
scripts/setup.sh
echo "test: ruff check"
.venv/bin/ruff check .
echo "test: ruff format --check"
.venv/bin/ruff format --check .
echo "test: mypy"
.venv/bin/mypy
echo "test: pytest"
.venv/bin/python -m pytest --numprocesses auto --max-worker-restart 0 --no-loadscope-reorder "$@"
