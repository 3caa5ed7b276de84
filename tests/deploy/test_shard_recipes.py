"""The recipes for clusters: every shard once, then the merging, as the clusters call them."""

import os
import subprocess
from pathlib import Path

import pytest

RECIPES = Path(__file__).parents[2] / "deploy" / "shards"

# Stands in for Slurm: says what it was asked, and runs the wrapped line for every index.
SBATCH = """\
#!/bin/sh
for word in "$@"; do
  case $word in
    --array=1-*) last=${word#--array=1-} ;;
    --dependency=*) echo "after ${word#--dependency=}" >> "$LOG" ;;
  esac
  line=$word
done
index=1
while [ "$index" -le "${last:-1}" ]; do
  SLURM_ARRAY_TASK_ID=$index SLURM_ARRAY_TASK_COUNT=${last:-1} sh -c "$line"
  index=$((index + 1))
done
echo 4711
"""
CAIRN = '#!/bin/sh\necho "$@" >> "$LOG"\n'


@pytest.fixture
def cluster(tmp_path):
    """Run a line with stand-ins; what was called, line by line."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in (("sbatch", SBATCH), ("cairn-site", CAIRN)):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    log = tmp_path / "log"

    def run(*words, **environment):
        known = {"PATH": f"{programs}:{os.environ['PATH']}", "LOG": str(log), "SITE": "/a site"}
        subprocess.run(words, check=True, env=known | environment, stdout=subprocess.PIPE)
        return log.read_text().splitlines()

    return run


def test_slurm_counts_every_shard_once_and_merges_when_all_are_well(cluster):
    called = cluster("sh", str(RECIPES / "slurm.sh"), "3")
    counts = [f"pixels count --shard {i}/3 --threads 2 --site-dir /a site" for i in (1, 2, 3)]
    assert called == [*counts, "after afterok:4711", "pixels merge --site-dir /a site"]


def test_slurm_needs_to_know_the_site_and_how_many(cluster):
    with pytest.raises(subprocess.CalledProcessError):
        cluster("sh", str(RECIPES / "slurm.sh"))
    with pytest.raises(subprocess.CalledProcessError):
        cluster("sh", str(RECIPES / "slurm.sh"), "3", SITE="")


def test_kubernetes_counts_every_shard_once(cluster):
    yaml = pytest.importorskip("yaml", reason="no YAML reader is installed")
    count, merge = yaml.safe_load_all((RECIPES / "job.yaml").read_text())
    assert (count["metadata"]["labels"], merge["metadata"]["labels"]) == (
        {"step": "count"},
        {"step": "merge"},
    )
    shards = count["spec"]["completions"]
    (container,) = count["spec"]["template"]["spec"]["containers"]
    for index in range(shards):
        called = cluster(*container["command"], *container["args"], JOB_COMPLETION_INDEX=str(index))
    expected = [f"--shard {i}/{shards}" for i in range(1, shards + 1)]
    assert [" ".join(line.split()[2:4]) for line in called] == expected
    (merging,) = merge["spec"]["template"]["spec"]["containers"]
    assert merging["command"][:3] == ["cairn-site", "pixels", "merge"]
    assert (
        merge["spec"]["template"]["spec"]["volumes"] == count["spec"]["template"]["spec"]["volumes"]
    )
