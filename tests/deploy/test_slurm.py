"""The recipe for Slurm, on a real Slurm of one node that the test starts on loopback."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from site_client.site import SiteFolder
from tests.site_client.worker.asking import UPDATE, ask

RECIPE = Path(__file__).parents[2] / "deploy" / "slurm"
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel")
MISSING = [name for name in PROGRAMS if shutil.which(name) is None]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(bool(MISSING), reason=f"no Slurm here: {', '.join(MISSING)}"),
    pytest.mark.skipif(os.geteuid() != 0, reason="Slurm's daemons start jobs as root only"),
]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def settings(folder: Path) -> str:
    host = socket.gethostname().split(".")[0]
    return "\n".join(
        [
            "ClusterName=test",
            f"SlurmctldHost={host}(127.0.0.1)",
            f"SlurmctldPort={free_port()}",
            f"SlurmdPort={free_port()}",
            "SlurmUser=root",
            "AuthType=auth/munge",
            "CredType=cred/munge",
            f"AuthInfo=socket={folder}/munge.socket",
            f"StateSaveLocation={folder}/state",
            f"SlurmdSpoolDir={folder}/spool",
            f"SlurmctldPidFile={folder}/slurmctld.pid",
            f"SlurmdPidFile={folder}/slurmd.pid",
            f"SlurmctldLogFile={folder}/slurmctld.log",
            f"SlurmdLogFile={folder}/slurmd.log",
            "ProctrackType=proctrack/linuxproc",
            "TaskPlugin=task/none",
            "SelectType=select/linear",
            "MpiDefault=none",
            "ReturnToService=2",
            "KillWait=30",
            f"NodeName={host} NodeAddr=127.0.0.1 CPUs={os.cpu_count()} RealMemory=8000",
            "PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP",
            "",
        ]
    )


@pytest.fixture
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Words of the environment in which sbatch finds a controller with one node."""
    folder = tmp_path_factory.mktemp("slurm")
    folder.chmod(0o755)
    for name in ("state", "spool"):
        (folder / name).mkdir()
    (folder / "slurm.conf").write_text(settings(folder))
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    munge = ["munged", "--foreground", "--force", f"--key-file={key}"]
    munge += [f"--socket={folder}/munge.socket", f"--pid-file={folder}/munged.pid"]
    munge += [f"--log-file={folder}/munged.log", f"--seed-file={folder}/munged.seed"]
    environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf")}
    lines = [munge, ["slurmctld", "-D"], ["slurmd", "-D"]]
    running: list[subprocess.Popen[bytes]] = []
    try:
        for line in lines:
            running.append(
                subprocess.Popen(line, env=environment, stderr=subprocess.DEVNULL, cwd=folder)
            )
            time.sleep(2)
        until(lambda: "idle" in _output(["sinfo", "-h", "-o", "%T"], environment), 60)
        yield {"SLURM_CONF": environment["SLURM_CONF"]}
    finally:
        if len(running) == len(lines):
            _output(["scancel", "--me"], environment)
            time.sleep(2)
        for process in reversed(running):
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _output(line: list[str], environment: dict[str, str]) -> str:
    return subprocess.run(line, env=environment, capture_output=True, encoding="utf-8").stdout


def until(holds, most_s: float) -> None:
    end = time.monotonic() + most_s
    while not holds():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.5)


def test_orders_are_answered_by_jobs_and_one_that_is_cut_short_by_the_next(
    make_site, tmp_path, slurm
):
    straight, batch = (make_site(root=tmp_path / name) for name in ("straight", "batch"))
    learner = straight.plan.learner.model_dump(mode="json") | {"updates": 1600}
    plan = straight.with_plan(learner=learner)
    wanted = ask(straight, straight.order(1, "train", plan=plan))[UPDATE].arrays
    command = Path(sys.executable).with_name("cairn-site")
    environment = (
        os.environ
        | slurm
        | {
            "CAIRN_SITE": str(batch.folder.root),
            "CAIRN_COMMAND": str(command),
            "CAIRN_WAIT_S": "1",
            "CAIRN_LOOK_S": "1",
        }
    )
    log, out = SiteFolder(batch.folder.root).worker_log, tmp_path / "slurm-1.out"
    digest = batch.put(batch.order(1, "train", plan=plan))
    watching = subprocess.Popen([RECIPE / "watch-inbox"], env=environment, cwd=tmp_path)
    try:
        until(lambda: out.exists() and "training: 80" in out.read_text("utf-8"), 120)
        _output(["scancel", "--signal=TERM", "--batch", "--name=cairn-worker"], environment)
        until(lambda: "left for the next start" in log.read_text("utf-8"), 60)
        until(lambda: batch.reply(digest) is not None, 240)
    finally:
        watching.terminate()
        watching.wait()
    got = batch.reply(digest)[UPDATE].arrays
    assert all(np.array_equal(got[name], wanted[name]) for name in wanted)
    assert log.read_text("utf-8").count("is ready") == 2, "two jobs, one after the other"
    assert batch.spool.orders() == []
