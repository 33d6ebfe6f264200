#!/usr/bin/env bash
# sbatch --nodes 2 slurm.sh adapt medical --run /shared/runs/medical --set train.parallel=fsdp2
#SBATCH --job-name=r1core
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=32
#SBATCH --time=12:00:00
#SBATCH --requeue
# One launcher a machine, one process a GPU. A job that is requeued runs the same command and goes on from the newest
# checkpoint, so the run directory lies on a file system that all machines share.
set -euo pipefail
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
srun python -m torch.distributed.run \
  --nnodes "$SLURM_NNODES" --nproc-per-node "$SLURM_GPUS_ON_NODE" \
  --rdzv-backend c10d --rdzv-id "$SLURM_JOB_ID" --rdzv-endpoint "$first:29500" \
  -m -- r1core "$@"
