#!/usr/bin/env bash
# Make or renew .venv with what requirements.txt and requirements-engines.txt pin. Does nothing where that is done already.
# Usage: scripts/setup.sh [--gpu]     --gpu: TensorFlow with NVIDIA's CUDA libraries
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv="$root/.venv"
stamp="$venv/headbank-setup"

# Compile the training of heads, some 20 s, unless what was compiled is kept.
compile_heads() {
  (cd "$root" && "$venv/bin/python" -m classify.bank) ||
    fail "the training of heads could not be compiled (the reason is above)."
}

# pip compiles modules on one core, and their tests too: a minute more.
pip_install() { "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile "$@"; }

fail() { printf 'error: %s\n' "$*" >&2; exit 2; }

gpu=no
case "${1:-}" in
  "") [ ! -f "$stamp" ] || gpu=$(sed -n 's/^gpu //p' "$stamp") ;;  # renewing keeps what was chosen
  --gpu) gpu=yes ;;
  -h | --help) sed -n '2,3s/^# //p' "${BASH_SOURCE[0]}"; exit 0 ;;
  *) fail "scripts/setup.sh takes --gpu or nothing; received '$1'." ;;
esac

wanted="gpu $gpu
requirements $(cat "$root/requirements.txt" "$root/requirements-engines.txt" | sha256sum)"
if [ -x "$venv/bin/python" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
  echo "setup: $venv is up to date"
  compile_heads
  exit 0
fi

python=${HEADBANK_PYTHON:-}
for candidate in $python python3.11 python3.12 python3.13 python3; do
  if command -v "$candidate" >/dev/null &&
    "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
    python=$candidate
    break
  fi
  [ "$candidate" != "${HEADBANK_PYTHON:-}" ] || fail "HEADBANK_PYTHON=$candidate is not Python 3.11, 3.12 or 3.13."
done
[ -n "$python" ] || fail "Python 3.11, 3.12 or 3.13 is needed and was not found. On Debian: apt-get install python3 python3-venv"
"$python" -c 'import ensurepip, venv' 2>/dev/null ||
  fail "the venv module of $python is missing. On Debian: apt-get install $(basename "$("$python" -c 'import sys; print("python%d.%d" % sys.version_info[:2])')")-venv"

if [ ! -x "$venv/bin/python" ]; then
  echo "setup: making $venv with $("$python" --version)"
  "$python" -m venv "$venv" || fail "$venv could not be made. Remove it and run again."
fi
requirements=("-r" "$root/requirements.txt")
if [ "$gpu" = yes ]; then
  requirements+=("$(sed -n 's/^tensorflow==/tensorflow[and-cuda]==/p' "$root/requirements.txt")")
fi
echo "setup: installing requirements.txt$([ "$gpu" = no ] || echo ' with CUDA') (some 3.5 GB on disk; a few minutes the first time)"
pip_install "${requirements[@]}" ||
  fail "pip could not install the requirements (its message is above). Fix that, and run scripts/setup.sh again."
# One by one: where a wheel is missing, the others are installed. Without dependencies: OpenVINO's is its telemetry.
for engine in $(grep -v '^#' "$root/requirements-engines.txt"); do
  pip_install --no-deps "$engine" ||
    echo "setup: $engine is left out (pip's message is above); it is optional: requirements-engines.txt says what for"
done
# Templates that are not valid Python fail, which does not matter.
"$venv/bin/python" -m compileall -qq -j 0 -x '/tests?/' "$venv/lib" || true
printf '%s\n' "$wanted" > "$stamp"
compile_heads
echo "setup: done, $venv is ready"
