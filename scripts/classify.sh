#!/usr/bin/env bash
# Stage 2: train on the cached features, predict, look where the model looks, and report.
# Usage: scripts/classify.sh DATA --out RUN [--no-pictures] [options]; --help lists the others.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/run.sh"

# A signal to this script reaches the step that is running, and ends the script when the step has ended.
stopped=''
stop() {
  asked=yes stopped=$2
  kill -s "$1" $(jobs -p) 2>/dev/null || : # none is running
}
trap 'stop INT 130' INT
trap 'stop TERM 143' TERM
trap 'stop HUP 129' HUP

step() {
  [ -z "$stopped" ] || exit "$stopped"
  set -m # in a group of its own: else bash would make it deaf to Ctrl-C
  (headbank "$@") &
  set +m
  local code=0
  asked=yes
  while [ "$asked" = yes ]; do # a signal ends `wait`, not the step
    asked=no code=0
    wait $! || code=$?
  done
  [ -z "$stopped" ] || exit "$stopped"
  return "$code"
}

# A step that goes on from the run: with its data, its cache, its columns.
follow() {
  local words=()
  mapfile -d '' -t words < <(headbank classify.rundir.command_lines "$out" "$@")
  step "${words[@]}"
}

out='' draw=yes words=()
for word in "$@"; do
  case "$word" in
    --no-pictures) draw=no; continue ;;
    --help) headbank classify run --help ;;
    --out=*) out=${word#--out=} ;;
    *) [ "${previous:-}" != --out ] || out=$word ;;
  esac
  previous=$word
  words+=("$word")
done
set -- "${words[@]}"

run=0
step classify run "$@" || run=$?
[ "$run" -eq 0 ] || [ "$run" -eq 3 ] || exit "$run" # 3: some test images have no prediction

# Pictures are an extra: where the images or the backbones' weights are no longer at hand, the report does without.
pictures=0
if [ "$draw" = yes ]; then
  follow extract heat || pictures=$?
  [ "$pictures" -ne 3 ] || pictures=0 # some images of the gallery are not shown: it has said which
fi
if [ "$pictures" -ne 0 ]; then
  echo "no pictures (the message above says why): the report stands without" >&2
fi

step classify report "$out"
[ "$pictures" -ne 1 ] || exit 1 # a fault of ours is one, also in an extra
exit "$run"
