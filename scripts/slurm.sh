#!/usr/bin/env bash
# Submit an extraction to Slurm: N jobs of an array, a shard each, and one that puts them together once all are done.
# Usage: scripts/slurm.sh N DATA --cache CACHE [options of scripts/extract.sh]
# CACHE, DATA and this folder lie where every node sees them. sbatch reads its own options from the environment:
# SBATCH_PARTITION, SBATCH_ACCOUNT, SBATCH_TIMELIMIT, SBATCH_GPUS, ... After a failure run the same command again.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

fail() { printf 'error: %s\n' "$*" >&2; exit 2; }

for word in "$@"; do
  case "$word" in
    -h | --help) sed -n '2,5s/^# //p' "${BASH_SOURCE[0]}"; exit 0 ;;
    --) break ;;
  esac
done
[[ "${1:-}" =~ ^[1-9][0-9]{0,5}$ ]] || fail "expected the number of shards first, as in scripts/slurm.sh 16 DATA --cache CACHE; received '${1:-}'."
count=$1
shift
[[ "${1:--}" != -* ]] || fail "expected DATA after the number of shards, as in scripts/slurm.sh $count DATA --cache CACHE; received '${1:-}'."
cache=
for ((at = 1; at <= $#; at++)); do
  case "${!at}" in
    --) break ;;
    --cache) next=$((at + 1)); cache=${!next:-}; [[ "$cache" != --* ]] || cache= ;;
    --cache=*) cache=${!at#--cache=} ;;
    --shard | --shard=*) fail "--shard is for this script to give. Leave it out." ;;
    --cluster | --cluster=* | --address | --address=* | --actor-cpus | --actor-cpus=*)
      fail "${!at%%=*} is for Ray, which has jobs of its own. Leave it out, or run $root/scripts/extract.sh." ;;
  esac
done
[ -n "$cache" ] || fail "--cache CACHE is missing: name the folder of the cache, which every node sees."
command -v sbatch > /dev/null || fail "sbatch was not found. Run this where Slurm takes jobs; elsewhere run $root/scripts/extract.sh with --shard 1/$count to $count/$count, then $root/.venv/bin/python -m extract assemble CACHE."
[ -d "$1" ] || fail "DATA, $1, is not a folder as seen from $PWD. Check the path: every node has to see it."

# Words as bash reads them again, whatever they hold: sbatch takes the job from stdin.
printf -v words ' %q' "$@"
printf -v extract '%q' "$root/scripts/extract.sh"
printf -v assemble '%q ' env PYTHONSAFEPATH=1 "PYTHONPATH=$root" "$root/.venv/bin/python" -m extract assemble -- "$cache"

array=$(sbatch --parsable --job-name=headbank-extract --array="1-$count" << EOF
#!/usr/bin/env bash
exec $extract --shard "\$SLURM_ARRAY_TASK_ID/$count"$words
EOF
)
array=${array%%;*} # JOB;CLUSTER
echo "slurm: job $array: $count shards of $*"
last=$(sbatch --parsable --job-name=headbank-assemble --dependency="afterok:$array" --kill-on-invalid-dep=yes << EOF
#!/usr/bin/env bash
exec $assemble
EOF
)
echo "slurm: job ${last%%;*}: puts them together in $cache once all are done"
