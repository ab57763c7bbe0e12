#!/usr/bin/env bash
# Set up, then test Keras on JAX and PyTorch, models of timm and keras-hub, and Ray, in a venv of their own that also sees what .venv has.
# Usage: scripts/test_backends.sh [pytest options]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
scripts/setup.sh
backends=.venv-backends
echo "backends: installing requirements-backends.txt and requirements-ray.txt into $backends"
.venv/bin/python -m venv "$backends"
purelib='import sysconfig; print(sysconfig.get_path("purelib"))'
.venv/bin/python -c "$purelib" > "$("$backends/bin/python" -c "$purelib")/headbank.pth"
"$backends/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile --no-deps -r requirements-backends.txt
"$backends/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile -r requirements-ray.txt
"$backends/bin/python" -m compileall -qq -j 0 -x '/tests?/' "$backends/lib" || true # as in scripts/setup.sh
echo "backends: pytest -m backends"
"$backends/bin/python" -m pytest -m backends --numprocesses auto --max-worker-restart 0 "$@"
