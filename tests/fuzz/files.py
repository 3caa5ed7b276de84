"""Readers of files of our own that others may have bent, and of tables of positions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from aggregator.admin import invites
from aggregator.admin import sealed as kept_sealed
from aggregator.admin.folder import FederationFolder
from aggregator.rounds.events import RunStarted, SiteRejected, read_events
from aggregator.rounds.queue import RunQueue
from aggregator.rounds.store import RunStore
from common.arrivals.files import read_bounded
from common.canonical import canonical_json
from common.screen import read_progress
from site_client.courier.courier import remembered
from site_client.decisions.making import Decision
from site_client.heldout.errors import read_errors
from site_client.heldout.memory import read_memory
from site_client.imaging.boxes import read_box_table
from site_client.imaging.landmark_tables import read_landmark_table, read_voxel_lines
from site_client.imaging.landmarks import read_landmarks
from site_client.imaging.listfiles import read_list
from site_client.keys.state import read_key_state
from site_client.plans.waiting import kept_plans
from site_client.site import SiteFolder
from site_client.trouble import read_trouble
from site_client.worker.site_cases import read_data_settings
from tests.fuzz import corpus, mutations
from tests.fuzz.decoder import Decoder, Reader, filed, folder, text


def _site(read: Callable[[SiteFolder], object], name: str) -> Reader:
    """Read a file of a site's folder."""

    def reader(data: bytes) -> object:
        path = folder() / "site" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return read(SiteFolder(folder() / "site"))

    return reader


def _run(read: Callable[[RunStore], object], name: str) -> Reader:
    """Read a file of a run's folder."""

    def reader(data: bytes) -> object:
        path = folder() / "run-1" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return read(RunStore(folder() / "run-1"))

    return reader


def _promise(data: bytes) -> object:
    federation = FederationFolder(folder() / "federation")
    federation.invites.mkdir(parents=True, exist_ok=True)
    (federation.invites / "one.json").write_bytes(data)
    return invites.open_invites(federation, corpus.NOW)


def _generation(data: bytes) -> object:
    federation = FederationFolder(folder() / "federation")
    federation.root.mkdir(parents=True, exist_ok=True)
    federation.generation_file.write_bytes(data)
    return kept_sealed.newest(federation)


def _federation(data: bytes) -> object:
    federation = FederationFolder(folder() / "federation")
    federation.root.mkdir(parents=True, exist_ok=True)
    federation.settings_file.write_bytes(data)
    return federation.settings()


def _queue(data: bytes) -> object:
    queue = RunQueue(folder() / "queue")
    queue.file.parent.mkdir(parents=True, exist_ok=True)
    queue.file.write_bytes(data)
    return queue.read()


def _journal(path: Path) -> object:
    return list(read_events(path))


def _events() -> bytes:
    started = RunStarted(
        ts=corpus.NOW,
        run="run-1",
        federation="fuzz",
        plan_name="fuzz",
        plan_fingerprint="ab" * 32,
        rounds=2,
        quorum=2,
        sites=("north",),
    )
    rejected = SiteRejected(ts=corpus.NOW, round=1, site="north", reason="bent")
    return b"".join(e.model_dump_json().encode() + b"\n" for e in (started, rejected))


def _decision(data: bytes) -> object:
    return Decision.read(data)


def of_tables() -> list[Decoder]:
    """Positions that people or their programs wrote down."""
    markups = (
        b'{"markups":[{"type":"Fiducial","coordinateSystem":"LPS","coordinateUnits":"mm",'
        b'"controlPoints":[{"label":"AC","position":[1.5,-2.0,3.0],"positionStatus":"defined"}]}]}'
    )
    fcsv = b"# CoordinateSystem = 0\n# columns = id,x,y,z,label\n1,1.5,-2.0,3.0,AC\n"
    return [
        Decoder("markups", (markups,), mutations.as_json, filed(read_landmarks, "a.mrk.json"), ()),
        Decoder("fcsv", (fcsv,), mutations.as_rows, filed(read_landmarks, "a.fcsv"), ()),
        Decoder(
            "table of landmarks",
            (
                b"case,landmark,x_mm,y_mm,z_mm\na,AC,1,2,3\na,PC,2,3,4\n",
                b"# unit = mm\nfilename,l_x,l_y,r_x,r_y\na.png,1,2,3,4\n",
            ),
            mutations.as_rows,
            filed(read_landmark_table, "table.csv"),
            (),
        ),
        Decoder(
            "lines of voxels",
            (b"1,2,3\n4.5,6,7\nnan,nan,nan\n",),
            mutations.as_rows,
            filed(read_voxel_lines, "a.txt"),
            (),
        ),
        Decoder(
            "table of boxes",
            (b"case,label,x0_mm,y0_mm,z0_mm,x1_mm,y1_mm,z1_mm\na,l,0,0,0,1,2,3\nb,l,,,,,,\n",),
            mutations.as_rows,
            filed(read_box_table, "boxes.csv"),
            (),
        ),
        Decoder(
            "list of files",
            (b"table.csv\n",),
            mutations.as_rows,
            filed(read_list, "list.txt"),
            (),
        ),
    ]


def of_files() -> list[Decoder]:
    memory = b'{"v":1,"seed":"' + b"ab" * 32 + b'","held_out":[],"training":[]}'
    trouble = (
        b'{"run":"run-1","round":1,"phase":"train","plan":"p","kind":"training",'
        b'"at":"2026-01-01","problems":[{"where":"x","says":"y","fix":"z"}],"count":1}'
    )
    kept = canonical_json(
        {
            "plan": corpus.plan().canonical().decode(),
            "since": "2026-01-01T00:00:00Z",
            "run": "run-1",
            "order_sha256": "ab" * 32,
        }
    )
    name = f"worker/plans/{corpus.plan().fingerprint}.json"
    promise = b'{"site":"north","expires":"2026-01-09T00:00:00+00:00","auto_admit":true}'
    decision = b'{"event":"APPROVE","person":"Ada","plan_fingerprint":"' + b"ab" * 32 + b'"}'
    settings = (
        b'v = 1\nfederation = "f"\nsite = "north"\naddress = "127.0.0.1:1"\ndata = "d"\n'
        b'app_sha256 = "' + b"ab" * 32 + b'"\n'
    )
    return [
        Decoder(
            "site.toml",
            (settings,),
            mutations.as_toml,
            _site(lambda site: site.settings(), "site.toml"),
            (),
        ),
        Decoder(
            "federation.toml",
            (b'name = "fuzz"\naddress = "127.0.0.1:8443"\nport = 8443\n',),
            mutations.as_toml,
            _federation,
            (),
        ),
        Decoder(
            "data.toml",
            (b'landmarks = "table"\n', b"\n"),
            mutations.as_toml,
            filed(lambda path: read_data_settings(path, folder()), "data.toml"),
            ("site_client.imaging.data_settings.read_data_settings",),
        ),
        Decoder(
            "held-out memory",
            (memory,),
            mutations.as_json,
            filed(read_memory, "heldout.json"),
            ("site_client.heldout.memory.read_memory",),
        ),
        Decoder(
            "note of trouble",
            (trouble,),
            mutations.as_json,
            _site(read_trouble, "worker/trouble.json"),
            ("site_client.trouble.read_trouble",),
        ),
        Decoder(
            "note of errors",
            (b'{"run":"run-1","errors":[]}',),
            mutations.as_json,
            _site(read_errors, "worker/errors.json"),
            ("site_client.heldout.errors.read_errors",),
        ),
        Decoder(
            "note of the key",
            (b'{"generation":1,"key_id":"ab"}',),
            mutations.as_json,
            _site(read_key_state, "worker/keys/state.json"),
            ("site_client.keys.state.read_key_state",),
        ),
        Decoder("kept plan", (kept,), mutations.as_json, _site(kept_plans, name), ()),
        Decoder(
            "decision",
            (decision,),
            mutations.as_json,
            _decision,
            ("site_client.decisions.making.Decision.read",),
        ),
        Decoder(
            "courier's note",
            (corpus.courier_note(),),
            mutations.as_json,
            filed(remembered, f"{'ab' * 32}.json"),
            (),
        ),
        Decoder(
            "promise",
            (promise,),
            mutations.as_json,
            _promise,
            ("aggregator.admin.invites.open_invites",),
        ),
        Decoder(
            "generation", (b'{"generation":1,"key_id":"ab"}',), mutations.as_json, _generation, ()
        ),
        Decoder(
            "run's journal",
            (_events(),),
            mutations.as_lines,
            filed(_journal, "events.jsonl"),
            ("aggregator.rounds.events.read_events",),
        ),
        Decoder(
            "queue of runs",
            (b"{}",),
            mutations.as_json,
            _queue,
            ("aggregator.rounds.queue.RunQueue.read",),
        ),
        Decoder(
            "run's plan",
            (corpus.plan().canonical(),),
            mutations.as_json,
            _run(lambda store: store.plan(), "plan.json"),
            (),
        ),
        Decoder(
            "run's options",
            (b'{"min_sites":1,"wait_s":1.0,"approval_s":2.0}',),
            mutations.as_json,
            _run(lambda store: store.options(), "options.json"),
            (),
        ),
        Decoder(
            "run's roster",
            (canonical_json([entry.model_dump() for entry in corpus.roster()]),),
            mutations.as_json,
            _run(lambda store: store.roster(), "roster.json"),
            (),
        ),
        Decoder(
            "run's round",
            (
                b'{"arrays":{},"codec":"","digest":"","documents":{},"facts":{},"key_id":"",'
                b'"link":"","round":1,"sum":""}',
            ),
            mutations.as_json,
            _run(lambda store: store.load(1), "rounds/0001/round.json"),
            ("aggregator.rounds.store.RunStore.load",),
        ),
        Decoder(
            "a child's line",
            (b'\x1e["training",3,9]',),
            mutations.raw,
            text(read_progress),
            ("common.screen.read_progress",),
        ),
        Decoder(
            "a bounded file",
            (bytes(90),),
            mutations.raw,
            filed(lambda path: read_bounded(path, 100, "a file"), "some"),
            ("common.arrivals.files.read_bounded",),
        ),
    ]
