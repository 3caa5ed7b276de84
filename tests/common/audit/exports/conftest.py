"""A real log server: rsyslog with GnuTLS, on loopback, with certificates of its own authority."""

from __future__ import annotations

import datetime
import ipaddress
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_PLUGINS = (Path("/usr/lib/x86_64-linux-gnu/rsyslog"), Path("/usr/lib/aarch64-linux-gnu/rsyslog"))
_RSYSLOGD = shutil.which("rsyslogd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
_CONFIGURATION = """
global(workDirectory="{folder}" maxMessageSize="8k"
  defaultNetstreamDriver="gtls"
  defaultNetstreamDriverCAFile="{folder}/ca.pem"
  defaultNetstreamDriverCertFile="{folder}/server.pem"
  defaultNetstreamDriverKeyFile="{folder}/server.key")
module(load="imtcp" streamDriver.name="gtls" streamDriver.mode="1"
  streamDriver.authMode="x509/certvalid")
template(name="whole" type="string" string="%rawmsg%\\n")
ruleset(name="in") {{ action(type="omfile" file="{folder}/received" template="whole") }}
input(type="imtcp" address="127.0.0.1" port="0" listenPortFileName="{folder}/port" ruleset="in")
"""


@dataclass
class Authority:
    """An authority and the certificates it made, as PEM files."""

    folder: Path

    def __post_init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.folder.name)])
        certificate = self._built(self._name, self._key.public_key(), ca=True)
        self.certificate = self.folder / "ca.pem"
        self.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str) -> tuple[Path, Path]:
        """Certificate and key for 127.0.0.1, good at both ends of a connection."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        paths = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        certificate = self._built(subject, key.public_key(), ca=False)
        paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        paths[1].write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return paths

    def _built(self, subject, key, *, ca: bool) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(minutes=5))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([address]), critical=False)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .sign(self._key, hashes.SHA256())
        )


class LogServer:
    """An rsyslogd that writes every message to a line of a file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority(folder)
        self.authority.issue("server")
        self.certificate, self.key = self.authority.issue("site")
        configuration = folder / "rsyslog.conf"
        configuration.write_text(_CONFIGURATION.format(folder=folder), encoding="utf-8")
        command = [str(_RSYSLOGD), "-n", "-f", str(configuration), "-i", str(folder / "pid")]
        with (folder / "stderr").open("wb") as errors:
            self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors)
        port = self._until(lambda: (folder / "port").read_text().strip())
        self.address = f"127.0.0.1:{port}"

    def so_far(self) -> int:
        """How many messages there are; tests share a server."""
        path = self.folder / "received"
        return len(path.read_bytes().splitlines()) if path.exists() else 0

    def received(self, count: int) -> list[bytes]:
        """Every message, once there are so many."""

        def lines() -> list[bytes]:
            read = (self.folder / "received").read_bytes().splitlines()
            return read if len(read) >= count else []

        return self._until(lines)

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(timeout=3)
        except subprocess.TimeoutExpired:  # one that waits for a client it has turned away
            self._process.kill()
            self._process.wait()

    def _until(self, look):
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                if found := look():
                    return found
            except FileNotFoundError:
                pass
            time.sleep(0.05)
        raise AssertionError((self.folder / "stderr").read_text(errors="replace"))


@contextmanager
def running() -> Iterator[LogServer]:
    if _RSYSLOGD is None or not any((each / "lmnsd_gtls.so").exists() for each in _PLUGINS):
        pytest.skip("no rsyslogd with rsyslog-gnutls here")
    with tempfile.TemporaryDirectory(prefix="cairn-log-") as folder:
        server = LogServer(Path(folder))
        try:
            yield server
        finally:
            server.stop()


@pytest.fixture(scope="module")
def log_server() -> Iterator[LogServer]:
    with running() as server:
        yield server


@pytest.fixture
def wary_server() -> Iterator[LogServer]:
    """One of its own for who is turned away: rsyslog may hang on such a connection."""
    with running() as server:
        yield server


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    (tmp_path / "foreign").mkdir()
    return Authority(tmp_path / "foreign")
