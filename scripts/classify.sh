#!/usr/bin/env bash
# Stage 2: train, predict, draw heat maps, report. Usage: scripts/classify.sh DATA --out RUN [options]; --help lists them.
. "$(dirname "${BASH_SOURCE[0]}")/run.sh"
headbank scripts/classify.sh "$@"
