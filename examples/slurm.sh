#!/bin/bash
# Train on several machines under SLURM. A job whose time ends, or that is preempted, goes on later.
#
#   sbatch examples/slurm.sh --config=configs/digits.yaml --outdir=/shared/runs
#
# Submit it in the folder of train.py, which gets all arguments. docs/cluster.md explains the steps.

#SBATCH --job-name=driftless
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR1@60
#SBATCH --requeue
#SBATCH --open-mode=append

set -u
PATIENCE=${PATIENCE:-20} # seconds to save before the training is killed

processes=${SLURM_GPUS_ON_NODE:-1} # on each node
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
port=$((20000 + SLURM_JOB_ID % 20000)) # jobs that share a node need different ones

# srun does not take this from the job
export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1}
threads=$((SRUN_CPUS_PER_TASK / processes))
export OMP_NUM_THREADS=$((threads > 0 ? threads : 1))
# decoded data, on a disk of the node itself
export DRIFTLESS_CACHE=${DRIFTLESS_CACHE:-${TMPDIR:-/tmp}/driftless-$(id -u)}

srun torchrun \
    --nnodes="${SLURM_NNODES:-1}" --nproc_per_node="$processes" --max-restarts=3 \
    --rdzv_backend=c10d --rdzv_endpoint="$first:$port" \
    --rdzv_id="$SLURM_JOB_ID-${SLURM_RESTART_COUNT:-0}" \
    -- train.py --resume=latest "$@" &
training=$!
is_stopped=
is_requeued=

# Ask the training to save and end, and wait for it.
stop() {
    is_stopped=1
    echo "slurm.sh: $1: asking the training to save"
    kill -TERM "$training" 2>/dev/null
    for ((second = 0; second < PATIENCE; second++)); do
        kill -0 "$training" 2>/dev/null || return
        sleep 1
    done
    echo "slurm.sh: it has not ended after $PATIENCE s: the next start uses its last state"
    kill -KILL "$training" 2>/dev/null
}
trap 'is_requeued=1; stop "time ends, or the job is preempted"' USR1
trap 'stop "the job is cancelled"' TERM

wait "$training"
code=$?
if [ -z "$is_stopped" ]; then
    exit "$code"
fi
if [ -n "$is_requeued" ]; then
    scontrol requeue "$SLURM_JOB_ID"
    exit 0
fi
exit 143
