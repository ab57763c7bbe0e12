#!/usr/bin/env bash
# Predict new images by a finished run. Usage: scripts/predict.sh RUN IMAGES [options]; --help lists them.
. "$(dirname "${BASH_SOURCE[0]}")/run.sh"
headbank scripts/predict.sh "$@"
