#!/usr/bin/env bash
# Set up, then run the main job on synthetic head-CT slices with real ImageNet weights, offline. Usage: scripts/demo.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if [ $# -gt 0 ]; then
  sed -n '2s/^# //p' scripts/demo.sh
  [ "$1" = --help ] || exit 2
  exit 0
fi
backbones=efficientnet_lite0,efficientnet_lite1,efficientnet_lite2

step() { printf '\ndemo: %s\n' "$*"; }
show() { step "$@"; "$@"; }

scripts/setup.sh
if [ ! -f demo/phantom/README.txt ]; then
  step "drawing synthetic head-CT slices into demo/phantom (no patient was ever scanned for them)"
  .venv/bin/python scripts/phantom.py demo/phantom --train 600 --test 200
fi
show scripts/extract.sh demo/phantom --backbones "$backbones" --cache demo/cache
show scripts/classify.sh demo/phantom --cache demo/cache --out demo/run --overwrite
step "the first predictions for the test images, demo/run/predictions_probability.csv:"
head -n 4 demo/run/predictions_probability.csv
step "the report, for a browser: demo/run/report.html"
