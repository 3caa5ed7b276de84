"""The archive for a machine without a network: made here, installed where no network is."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from common.errors import InputDataError, UnreachableError
from deploy.bundle.locks import Pin, read_lock
from deploy.bundle.pack import pack, write_checksums

DIGEST = "0" * 64


def test_a_lock_is_read_as_it_is_written(tmp_path):
    pins = [Pin("click", "8.5.1", DIGEST), Pin("torch", "2.13.0+cpu", "1" * 64)]
    path = tmp_path / "x.lock"
    path.write_text("# who\n" + "".join(str(pin) for pin in pins))
    assert read_lock(path) == pins


@pytest.mark.parametrize(
    "text",
    [
        "",
        "click==8.5.1\n",
        f"click>=8 \\\n    --hash=sha256:{DIGEST}\n",
        "click==8.5.1 \\\n    --hash=md5:abc\n",
        f"click==8.5.1 \\\n    --hash=sha256:{DIGEST}\nrich==1\n",
        f"--pre \\\n    --hash=sha256:{DIGEST}\n",
    ],
    ids=["empty", "no digest", "no version", "another digest", "a loose line", "an option"],
)
def test_what_is_no_lock_is_refused(tmp_path, text):
    path = tmp_path / "x.lock"
    path.write_text(text)
    with pytest.raises(InputDataError):
        read_lock(path)


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    """The bundle of a courier; pip fetches what is not in build/wheels yet."""
    try:
        return pack(tmp_path_factory.mktemp("bundle") / "cairn.tar.gz", ["courier"])
    except UnreachableError as error:
        pytest.skip(f"wheels cannot be fetched here: {error}")


@pytest.fixture
def unpacked(archive, tmp_path) -> Path:
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path, filter="data")
    (folder,) = tmp_path.iterdir()
    return folder


def install(folder: Path, *words: str, offline: bool = True) -> subprocess.CompletedProcess[str]:
    """``install.sh`` in a network namespace in which not even loopback is up."""
    alone = ["unshare", "--net", "--map-root-user"] if offline else []
    return subprocess.run(
        [*alone, "sh", folder / "install.sh", *words],
        capture_output=True,
        encoding="utf-8",
        check=False,
        # Whatever this machine's pip is told must not matter.
        env={**os.environ, "PIP_INDEX_URL": "file:///nowhere", "PIP_NO_INDEX": "0"},
    )


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(shutil.which("unshare") is None, reason="unshare is not installed")
def test_the_bundle_installs_without_a_network_and_the_command_works(unpacked, tmp_path):
    prefix = tmp_path / "opt"
    done = install(unpacked, "courier", str(prefix))
    assert done.returncode == 0, done.stderr
    program = prefix / "courier" / "bin" / "cairn-site"
    said = subprocess.run([program, "--help"], capture_output=True, encoding="utf-8", check=True)
    assert "join" in said.stdout
    python = prefix / "courier" / "bin" / "python"
    probe = "import importlib.util as u; print([u.find_spec(m) for m in ('torch', 'SimpleITK')])"
    seen = subprocess.run(
        [python, "-P", "-c", probe], capture_output=True, encoding="utf-8", check=True, cwd="/"
    )
    assert seen.stdout.strip() == "[None, None]"
    # Once more over itself: the link moves, nothing else is needed.
    assert install(unpacked, "courier", str(prefix)).returncode == 0
    assert (prefix / "courier").is_symlink()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_bundle_with_one_bit_changed_or_one_file_more_installs_nothing(unpacked, tmp_path):
    prefix = tmp_path / "opt"
    wheel = sorted((unpacked / "wheels").glob("*.whl"))[0]
    honest = wheel.read_bytes()
    wheel.write_bytes(honest[:-1] + bytes([honest[-1] ^ 1]))
    done = install(unpacked, "courier", str(prefix), offline=False)
    assert done.returncode == 4
    assert wheel.name in done.stdout + done.stderr
    wheel.write_bytes(honest)
    (unpacked / "wheels" / "evil-1.0-py3-none-any.whl").write_bytes(b"")
    done = install(unpacked, "courier", str(prefix), offline=False)
    assert done.returncode == 4
    assert not prefix.exists()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_even_with_matching_checksums_pip_refuses_what_the_lock_does_not_name(unpacked, tmp_path):
    wheel = next((unpacked / "wheels").glob("click-*.whl"))
    wheel.write_bytes(wheel.read_bytes() + b"\0")
    (unpacked / "SHA256SUMS").unlink()
    write_checksums(unpacked)
    done = install(unpacked, "courier", str(tmp_path / "opt"), offline=False)
    assert done.returncode != 0
    assert "DO NOT MATCH THE HASHES" in done.stderr
    assert not (tmp_path / "opt" / "courier").exists()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_bundle_says_what_it_holds(unpacked):
    for name in ("SHA256SUMS", "README.md", "EGRESS.md", "LICENSE", "VERSION", "constraints.txt"):
        assert (unpacked / name).stat().st_size > 0
    bill = json.loads((unpacked / "sbom" / "courier.cdx.json").read_text())
    assert bill["bomFormat"] == "CycloneDX"
    listed = {component["name"].lower().replace("_", "-") for component in bill["components"]}
    locked = {pin.name for pin in read_lock(unpacked / "locks" / "courier.lock")}
    assert locked <= listed | {name.replace(".", "-") for name in listed}
    assert {pin.name for pin in read_lock(unpacked / "locks" / "cairn.lock")} == {"cairn-fl"}
    assert len(list((unpacked / "wheels").glob("*.whl"))) == len(locked) + 1
