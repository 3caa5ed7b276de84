#!/bin/sh
# Count one phase of a pixels run as a Slurm array, then merge:
#   SITE=/srv/cairn/site sh slurm.sh 64
# Give the account, partition and time of your cluster by SBATCH_ACCOUNT and the like.
set -eu

: "${SITE:?set SITE to the site folder, which every node sees}"
shards=${1:?how many shards}
CAIRN=${CAIRN:-cairn-site}
export SITE CAIRN

array=$(sbatch --parsable --export=ALL --array="1-$shards" --cpus-per-task=2 --mem=6G \
  --job-name=cairn-count --wrap \
  '"$CAIRN" pixels count --shard "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT" --threads 2 --site-dir "$SITE"')
sbatch --export=ALL --dependency="afterok:$array" --mem=6G --job-name=cairn-merge --wrap \
  '"$CAIRN" pixels merge --site-dir "$SITE"'
