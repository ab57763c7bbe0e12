#!/usr/bin/env bash
# Set up, then run the main job on synthetic head-CT slices with real ImageNet weights, offline. Usage: scripts/demo.sh
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/run.sh"
"$root/scripts/setup.sh"
demo="$root/demo"
backbones=efficientnet_lite0,efficientnet_lite1,efficientnet_lite2

step() { printf '\ndemo: %s\n' "$*"; }

if [ ! -f "$demo/phantom/README.txt" ]; then
  step "drawing synthetic head-CT slices into demo/phantom (no patient was ever scanned for them)"
  "$root/.venv/bin/python" "$root/scripts/phantom.py" "$demo/phantom" --train 600 --test 200
fi
step "stage 1: scripts/extract.sh demo/phantom --backbones $backbones --cache demo/cache"
"$root/scripts/extract.sh" "$demo/phantom" --backbones "$backbones" --cache "$demo/cache"
step "stage 2: scripts/classify.sh demo/phantom --cache demo/cache --out demo/run"
"$root/scripts/classify.sh" "$demo/phantom" --cache "$demo/cache" --out "$demo/run" --overwrite
step "the first predictions on the test images, demo/run/predictions_probability.csv:"
head -n 4 "$demo/run/predictions_probability.csv"
