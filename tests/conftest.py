"""A whole site on disk, and its aggregator's key: for worker, command and privacy tests."""

from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import pytest

from common.canonical import sha256_hex
from common.crypto.certificates import (
    certificate_fingerprint,
    certificate_to_pem,
    create_authority,
)
from common.crypto.identity import SigningKey
from common.crypto.keyed import FederationKey
from common.enrolment import Invite
from common.ledger.proof import cosign
from common.model import initial_weights
from common.plan import FederationPlan, parse_plan
from common.wire import parcel
from common.wire.envelope import Envelope, decode
from common.wire.orders import SIGNATURE_CONTEXT, OrderHeader, encode_order
from site_client.join import join
from site_client.site import SiteFolder
from site_client.spool import Spool

SMALL_PLAN = {
    "name": "small",
    "seed": 5,
    "task": {"landmarks": ["A", "B"], "working_spacing_mm": 1.0},
    "model": {"roi": 13, "width": 4},
    "agent": {
        "scales": [2.0, 1.0],
        "steps_mm": [4.0, 1.0],
        "searches": 12,
        "episode_steps": 8,
        "updates": 10,
        "batch": 8,
        "warmup": 120,
        "replay_capacity": 400,
        "rare_first": 0.5,
        "shift_mm": 4.0,
        "evaluation_starts": 3,
    },
    "experience": {"rows": 3, "columns": 64, "position_bins": 8},
    "rounds": {"training": 4},
}


@dataclass
class TestSite:
    """A joined site, and what its aggregator would hold."""

    __test__ = False

    folder: SiteFolder
    witness: SigningKey
    plan: FederationPlan

    @property
    def spool(self) -> Spool:
        return Spool(self.folder.spool)

    def order(self, round_=0, phase="begin", run="run-1", plan=None, **changes) -> bytes:
        """The parcel of an order; ``changes`` bend its parts."""
        plan = plan or self.plan
        header = OrderHeader(
            run=run,
            round=round_,
            phase=phase,
            plan=plan.canonical().decode(),
            deadline_s=60,
            codec=changes.get("codec"),
        )
        trains = phase in ("train", "evaluate")
        weights = changes.get("weights", initial_weights(plan) if trains else {})
        body = encode_order(header, weights, changes.get("sketch"), changes.get("tables"))
        signer = changes.get("signer", self.witness)
        parts = {"order": body, "signature": signer.sign(SIGNATURE_CONTEXT + body)}
        if "receipt" in changes:
            parts["receipt"] = changes["receipt"]
        return parcel.wrap(parts | changes.get("beside", {}))

    def receipt(self, note: bytes) -> bytes:
        return cosign(note, self.witness, datetime.now(UTC))

    def put(self, order: bytes) -> str:
        self.spool.prepare()
        return self.spool.put_order(order)

    def reply(self, digest: str) -> dict[str, Envelope] | None:
        data = self.spool.read_reply(digest)
        if data is None:
            return None
        parts = parcel.unwrap(data)
        return {
            name.removesuffix(".envelope"): decode(part)
            for name, part in parts.items()
            if name.endswith(".envelope")
        }

    def with_plan(self, **changes) -> FederationPlan:
        return parse_plan(SMALL_PLAN | changes)


def write_case(folder, name, number, voxels=None):
    """A little head: a bright blob at A, a dark one at B."""
    from site_client.imaging.landmarks import write_landmarks
    from site_client.imaging.synthesis import Grid, RawImage, write_raw

    size = (30 + number % 3, 34, 28)
    index = np.stack(np.meshgrid(*(np.arange(n) for n in size), indexing="ij"), axis=-1)
    a, b = np.array(size) / 2 + (4 - number, -5, 3), np.array(size) / 2 + (-5, 6 - number, -4)
    near_a, near_b = (((index - p) ** 2).sum(axis=-1) for p in (a, b))
    if voxels is None:
        voxels = 120 + 120 * np.exp(-near_a / 40) - 110 * np.exp(-near_b / 40)
        voxels = np.ascontiguousarray(voxels.T.astype(np.int16))
    folder.mkdir(parents=True, exist_ok=True)
    grid = Grid(size, (1.0, 1.0, 1.0), (10.0 * number, -5.0, 7.0), np.eye(3))
    write_raw(folder / f"{name}.nii.gz", RawImage(voxels, grid))
    origin = np.array(grid.origin_mm)
    write_landmarks(folder / f"{name}.mrk.json", {"A": origin + a, "B": origin + b})


@pytest.fixture
def invite_and_witness():
    witness = SigningKey.from_seed(b"w" * 32)
    _, authority = create_authority("test federation")
    invite = Invite(
        federation="test",
        site="north",
        address="127.0.0.1:1",
        ca_certificate=certificate_to_pem(authority).decode(),
        ca_sha256=certificate_fingerprint(authority),
        witness_key=witness.public.text,
        app_sha256=sha256_hex(b"app"),
    )
    return invite, witness


@pytest.fixture
def make_site(tmp_path, invite_and_witness):
    """Builder of a joined site with ``images`` cases and the federation key."""

    def make(name="north", images=3, root=None, **plan) -> TestSite:
        invite, witness = invite_and_witness
        root = root or tmp_path / name
        data = root / "images"
        for number in range(images):
            write_case(data, f"case-{number}", number)
        data.mkdir(parents=True, exist_ok=True)
        folder = SiteFolder(root / "site")
        shared = FederationKey(bytes(range(16)))
        join(invite.model_copy(update={"site": name}), folder, data, shared)
        return TestSite(folder, witness, parse_plan(SMALL_PLAN | plan))

    return make


@pytest.fixture
def site(make_site) -> TestSite:
    return make_site()
