"""A whole site on disk, and its aggregator's key: for worker, command and privacy tests."""

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import settings

from common.canonical import sha256_hex
from common.crypto.certificates import (
    certificate_fingerprint,
    certificate_to_pem,
    create_authority,
)
from common.crypto.identity import SigningKey, read_signing_key
from common.crypto.keyed import FederationKey
from common.enrolment import Invite
from common.ledger.proof import cosign
from common.plan import FederationPlan, parse_plan
from common.schedule import schedule
from common.sums.addition import sum_digest
from common.wire import parcel
from common.wire.envelope import Envelope, decode
from common.wire.orders import SIGNATURE_CONTEXT, OrderHeader, RosterEntry, encode_order
from common.wire.transport import sum_part
from site_client.join import join
from site_client.site import SiteFolder
from site_client.spool import Spool
from tests.aggregated import Past, roster_of

pytest_plugins = ["tests.division", "tests.shuffle"]

# A busy machine is no failure: no example has a deadline.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

SMALL_PLAN = {
    "name": "small",
    "seed": 5,
    "task": {"landmarks": ["A", "B"], "spacing_mm": 1.0, "roi": 13},
    "ladder": {"scales": [2.0, 1.0], "steps_mm": [4.0, 1.0]},
    "network": {"width": 4},
    "learner": {
        "searches": 12,
        "episode_steps": 8,
        "updates": 40,
        "batch": 16,
        "warmup": 128,
        "replay_capacity": 1000,
        "replay": "rare-first",
        "rare_first": 0.5,
    },
    "pose": {"shift_mm": 4.0},
    "evaluation": {"starts": 3},
    "experience": {"rows": 3, "columns": 64, "position_bins": 8},
    "rounds": {"training": 4},
}


FEDERATION_KEY = FederationKey(bytes(range(16)))


def loosen(folder: SiteFolder, **changes: str) -> None:
    """A policy under which small plans run without a person; what is bounded is tested apart."""
    text = folder.policy_file.read_text()
    changes = {
        "approval": '"bounded"',
        "least_known": "0",
        "least_in_sum": "0",
    } | changes
    for name, value in changes.items():
        text, found = re.subn(rf"(?m)^{name} = .*$", f"{name} = {value}", text)
        assert found == 1, f"{found} lines of policy.toml set {name}"
    folder.policy_file.write_text(text)


@dataclass
class TestSite:
    """A joined site, and what its aggregator would hold."""

    __test__ = False

    folder: SiteFolder
    witness: SigningKey
    plan: FederationPlan
    pasts: dict[tuple[str, str], Past] = field(default_factory=dict)

    @property
    def spool(self) -> Spool:
        return Spool(self.folder.spool)

    @property
    def key(self) -> FederationKey:
        return FEDERATION_KEY

    @property
    def roster(self) -> list[RosterEntry]:
        own = read_signing_key(self.folder.ledger_key).public.fingerprint
        return roster_of(self.folder.settings().site, own)

    def past(self, plan=None, run="run-1") -> Past:
        """The sums of a run, kept for the orders after them."""
        plan = plan or self.plan
        return self.pasts.setdefault(
            (run, plan.fingerprint), Past(plan, run, self.roster, self.key)
        )

    def order(self, round_=0, phase="begin", run="run-1", plan=None, **changes) -> bytes:
        """The parcel of an order; ``changes`` bend its parts."""
        plan = plan or self.plan
        sums = changes.get("sums")
        if sums is None:
            # An order for which there is no such round in the plan has no past either.
            sums = self.past(plan, run).until(round_) if round_ < len(schedule(plan)) else {}
        header = OrderHeader(
            run=run,
            round=round_,
            phase=phase,
            plan=plan.canonical().decode(),
            deadline_s=changes.get("deadline_s", 60),
            roster=tuple(changes.get("roster", self.roster)),
            sum=changes.get("sum", sum_digest(sums[max(sums)]) if sums else None),
            codec=changes.get("codec"),
        )
        body = encode_order(header)
        signer = changes.get("signer", self.witness)
        parts = {"order": body, "signature": signer.sign(SIGNATURE_CONTEXT + body)}
        if "receipt" in changes:
            parts["receipt"] = changes["receipt"]
        parts |= {sum_part(number): data for number, data in sums.items()}
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
        join(invite.model_copy(update={"site": name}), folder, data, FEDERATION_KEY)
        loosen(folder)
        return TestSite(folder, witness, parse_plan(SMALL_PLAN | plan))

    return make


@pytest.fixture
def site(make_site) -> TestSite:
    return make_site()
