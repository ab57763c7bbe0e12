#!/usr/bin/env bash
# Extract a folder of new images and predict them by a finished run. Usage: scripts/predict.sh RUN IMAGES [options]
#   --out DIR          where to write; RUN/predictions/{name of IMAGES} by default, which is renewed each time
#   --cache CACHE      where to keep the features; DIR/cache by default
#   --model NAME       a model of the run instead of its final one
#   --weights-dir DIR  folder that may hold the ImageNet weights, as for scripts/extract.sh
#   --overwrite        replace the predictions that --out DIR holds
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/run.sh"

usage() { sed -n '2,7s/^# //p' "${BASH_SOURCE[0]}"; }
fail() { printf 'error: %s\n' "$*" >&2; exit 2; }

case "${1:-}" in -h | --help) usage; exit 0 ;; esac
[ $# -ge 2 ] && [[ $1 != -* && $2 != -* ]] || { usage >&2; exit 2; }
run=${1%/} images=${2%/}
shift 2
out='' cache='' model=() weights=() overwrite=()
while [ $# -gt 0 ]; do
  case "$1" in
    --overwrite) overwrite=(--overwrite); shift; continue ;;
    --out | --cache | --model | --weights-dir) [ $# -ge 2 ] || fail "scripts/predict.sh: $1 needs a value." ;;
    *) fail "scripts/predict.sh does not know '$1'. Its options: --out, --cache, --model, --weights-dir, --overwrite." ;;
  esac
  case "$1" in
    --out) out=$2 ;;
    --cache) cache=$2 ;;
    --model) model=(--model "$2") ;;
    --weights-dir) weights=(--weights-dir "$2") ;;
  esac
  shift 2
done
[ -d "$images" ] || fail "$images is no folder. Give the folder of the images to predict."
if [ -z "$out" ]; then
  out="$run/predictions/$(basename "$(realpath "$images")")" overwrite=(--overwrite)
fi
cache=${cache:-$out/cache}

# What the run's models learnt from decides how stage 1 runs; images that it rejects (exit 3) get empty cells.
options=$(headbank classify extract-options "$run" "${model[@]}")
while IFS= read -r line; do
  eval "arguments=($line)" # quoted for a shell by extract-options
  (headbank extract run "$images" --split new --cache "$cache" "${weights[@]}" "${arguments[@]}") || {
    code=$?
    [ $code -eq 3 ] || exit $code
  }
done <<< "$options"
headbank classify predict "$run" --cache "$cache" --split new --images "$images" --out "$out" "${model[@]}" \
  "${overwrite[@]}"
