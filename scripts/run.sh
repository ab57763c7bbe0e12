# Sourced by the other scripts: `headbank COMMAND ...` becomes that command of scripts/pipeline.py, from any folder.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

headbank() {
  if [ ! -x "$root/.venv/bin/python" ]; then
    echo "error: $root/.venv is not set up. Run: $root/scripts/setup.sh" >&2
    exit 2
  fi
  # The folder that it is called from stays off Python's path: a module there must not stand in for one of ours.
  # exec, so that signals to the script reach the work.
  PYTHONSAFEPATH=1 PYTHONPATH="$root" exec "$root/.venv/bin/python" -m scripts.pipeline "$@"
}
