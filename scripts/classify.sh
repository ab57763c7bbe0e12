#!/usr/bin/env bash
# Stage 2: train on the cached features and predict. Usage: scripts/classify.sh DATA --out RUN [options]; --help lists them.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/run.sh"
headbank classify run "$@"
