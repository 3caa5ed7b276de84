"""Shards on a real Dask scheduler over TLS on loopback: the same whole; strangers are refused."""

import importlib.util
import json
import os
import subprocess
import sys
import time
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from site_client.cli import cli
from site_client.pixels.checkpoints import open_sealed
from site_client.pixels.passes import read_part
from site_client.pixels.statistics import survey
from site_client.worker.slide_shards import ShardWords, open_pass
from site_client.worker.slide_tasks import merged_file
from tests.site_client.worker.test_slide_shards import own_slides, the_plan

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("distributed") is None, reason="the extra 'dask' is not installed"
)
ROOT = Path(__file__).parents[3]


def name(text):
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])


def authority(folder):
    """A certificate authority and a certificate for 127.0.0.1, both PEM, with its key."""
    folder.mkdir()
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    now = datetime.now(UTC)

    def signed(subject, public, *extensions):
        builder = x509.CertificateBuilder().subject_name(name(subject)).issuer_name(name("ca"))
        builder = builder.public_key(public).serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(now - timedelta(hours=1))
        builder = builder.not_valid_after(now + timedelta(days=1))
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        return builder.sign(keys[0], hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    here = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    root = (x509.BasicConstraints(ca=True, path_length=0), True)
    (folder / "ca.pem").write_bytes(signed("ca", keys[0].public_key(), root))
    (folder / "cert.pem").write_bytes(signed("node", keys[1].public_key(), (here, False)))
    secret = keys[1].private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    (folder / "key.pem").write_bytes(secret)
    return folder


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A scheduler and a worker; the address, and the folder of the certificates."""
    folder = tmp_path_factory.mktemp("dask")
    pem = authority(folder / "pem")
    tls = ["--tls-ca-file", pem / "ca.pem", "--tls-cert", pem / "cert.pem"]
    tls += ["--tls-key", pem / "key.pem", "--no-dashboard"]
    known = folder / "scheduler.json"
    environment = os.environ | {"PYTHONPATH": f"{ROOT}", "DASK_DISTRIBUTED__WORKER__DAEMON": "0"}

    def start(program, *words):
        module = f"distributed.cli.dask_{program}"
        with (folder / f"{program}.log").open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", module, *map(str, [*words, *tls])],
                stdout=log,
                stderr=log,
                env=environment,
                cwd=folder,
            )

    with ExitStack() as stack:
        scheduler = stack.enter_context(
            start("scheduler", "--protocol", "tls", "--host", "127.0.0.1", "--port", "0",
                  "--scheduler-file", known)
        )  # fmt: skip
        stack.callback(scheduler.terminate)
        deadline = time.monotonic() + 90
        while not known.exists() and time.monotonic() < deadline:
            assert scheduler.poll() is None, (folder / "scheduler.log").read_text()
            time.sleep(0.1)
        worker = stack.enter_context(
            start("worker", "--protocol", "tls", "--host", "127.0.0.1", "--nthreads", "1",
                  "--no-nanny", "--scheduler-file", known)
        )  # fmt: skip
        stack.callback(worker.terminate)
        yield json.loads(known.read_text())["address"], pem


def count(site, tmp_path, address, pem, *more):
    tls = ["--tls-ca", pem / "ca.pem", "--tls-cert", pem / "cert.pem", "--tls-key", pem / "key.pem"]
    words = ["count", "--engine", "dask", "--shards", "2", "--scheduler", address, *tls]
    words += [*the_plan(tmp_path), "--site-dir", site.folder.root, "--json", *more]
    return CliRunner().invoke(cli, ["pixels", *map(str, words)])


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_shards_on_a_cluster_make_the_whole_of_one_process(slides, tmp_path, cluster):
    address, pem = cluster
    done = count(slides, tmp_path, address, pem)
    assert done.exit_code == 0, (done.output, done.exception)
    assert json.loads(done.stdout)["slides"] == 2
    merged = ["pixels", "merge", *the_plan(tmp_path), "--site-dir", str(slides.folder.root)]
    assert CliRunner().invoke(cli, merged).exit_code == 0
    plan = the_plan(tmp_path)
    whole = open_pass(ShardWords(str(slides.folder.root), plan[1], plan[3]))
    found = read_part(open_sealed(merged_file(whole.folder), whole.bond), whole.section, None).found
    one, other = map(survey, own_slides(slides))
    np.testing.assert_array_equal(found.gram, (one + other).gram)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_a_shard_that_cannot_be_counted_is_said_by_its_number(slides, tmp_path, cluster):
    address, pem = cluster
    for path in slides.folder.data().glob("*.npy"):
        path.write_bytes(path.read_bytes()[:-100])
    done = count(slides, tmp_path, address, pem)
    assert "shard" in str(done.exception)
    assert "cut short" in str(done.exception)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_a_scheduler_under_another_authority_is_not_spoken_to(
    slides, tmp_path, cluster, monkeypatch
):
    monkeypatch.setattr("site_client.commands.on_dask._PATIENCE", "2s")
    strangers = authority(tmp_path / "strangers")
    done = count(slides, tmp_path, cluster[0], strangers)
    assert "cannot reach the Dask scheduler" in str(done.exception)


def test_dask_without_tls_is_refused_before_anything_is_sent(slides, tmp_path):
    pem = authority(tmp_path / "pem")
    done = count(slides, tmp_path, "tcp://127.0.0.1:8786", pem)
    assert "over TLS alone" in str(done.exception)
