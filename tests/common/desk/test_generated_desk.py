"""The committed gRPC code is what desk.proto says: `make proto` would change nothing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
GENERATED = ("desk_pb2.py", "desk_pb2.pyi", "desk_pb2_grpc.py", "desk_pb2_grpc.pyi")


def test_generating_again_gives_the_same_bytes(tmp_path):
    recipe = re.search(r"^proto:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.M)
    assert recipe is not None
    options = re.findall(r"--(\w+_out)=([\w:]*)\.", recipe[1])
    assert len(options) == 4
    subprocess.run(
        [
            *(sys.executable, "-m", "grpc_tools.protoc", "-I."),
            *(f"--{name}={prefix}{tmp_path}" for name, prefix in options),
            "common/desk/desk.proto",
        ],
        cwd=ROOT,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        check=True,
        timeout=120,
    )
    for name in GENERATED:
        again = (tmp_path / "common" / "desk" / name).read_bytes()
        assert again == (ROOT / "common" / "desk" / name).read_bytes(), name


def test_every_message_field_has_a_number_that_no_other_had():
    """Numbers are the wire format: a frozen list, to which only new lines may be added."""
    from common.desk import desk_pb2

    found = {
        f"{name}.{field.name}": field.number
        for name, message in desk_pb2.DESCRIPTOR.message_types_by_name.items()
        for field in message.fields
    }
    frozen = {
        "EnrolRequest.token": 1,
        "EnrolRequest.join_request": 2,
        "EnrolReply.state": 1,
        "EnrolReply.certificate": 2,
        "EnrolReply.server_unix_ms": 3,
        "EnrolReply.federation_key": 4,
        "SignedRequest.site": 1,
        "SignedRequest.body": 2,
        "SignedRequest.unix_ms": 3,
        "SignedRequest.nonce": 4,
        "SignedRequest.key": 5,
        "SignedRequest.signature": 6,
        "RenewReply.certificate": 1,
        "SealedKey.for_site": 1,
        "SealedKey.key_id": 2,
        "SealedKey.generation": 3,
        "SealedKey.ciphertext": 4,
        "SealedKey.from_site": 5,
        "SealedKey.signature": 6,
    }
    assert {name: found.get(name) for name in frozen} == frozen
