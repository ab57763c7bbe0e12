#!/usr/bin/env bash
# Stage 1: extract the features of every image of DATA. Usage: scripts/extract.sh DATA [options]; --help lists them.
. "$(dirname "${BASH_SOURCE[0]}")/run.sh"
headbank scripts/extract.sh "$@"
