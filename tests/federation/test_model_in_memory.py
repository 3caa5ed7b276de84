"""What a run came to: as a folder, verified offline, and every way of tampering with it named."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime

import numpy as np
import pytest
import safetensors.numpy
import tomli_w
from click.testing import CliRunner

from aggregator.cli import cli as aggregator
from aggregator.desk.server import DeskServer
from common.audit.cli import cli as auditor
from common.canonical import canonical_json, sha256_hex
from common.checkpoint import loaded_weights, saved
from common.cli import run
from common.crypto.identity import SigningKey, read_signing_key
from common.errors import InputDataError, RefusedError, UnreachableError, UsageError
from common.ledger.log import Ledger
from common.ledger.notes import ledger_origin
from common.model import weights_digest
from common.plan import parse_plan
from common.released.folder import new_folder
from common.released.provenance import decode_provenance, sign_provenance
from common.sums.addition import decode_sum, encode_sum
from site_client.agent_app.checkpoint import read_checkpoint
from tests.programs import free_ports

SITES = ("site-a", "site-b", "site-c")


def invoke(program, *words):
    """Run a command line in this process; a failure is raised as it is."""
    done = CliRunner().invoke(program, [str(word) for word in words])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


@pytest.fixture(scope="module")
def momentum_plan(no_op_plan):
    """Three rounds, whose averaging goes on in the direction of those before."""
    plan = no_op_plan.model_dump(mode="json")
    plan["rounds"] |= {"training": 3, "server_momentum": 0.5}
    return parse_plan(plan)


@pytest.fixture(scope="module")
def completed(federation_at, tmp_path_factory, momentum_plan, moving_here):
    """A federation whose run COMPLETED, and a copy of all its folders."""
    root = tmp_path_factory.mktemp("completed") / "here"
    federation = federation_at(root)
    for site in SITES:
        federation.add_site(site)
    store = federation.create_run(momentum_plan, min_sites=3)
    assert federation.conduct(store, federation.transport()).verdict == "COMPLETED"
    return federation, shutil.copytree(root, root.with_name("copy"))


@pytest.fixture
def came(completed):
    """That federation, as it was when its run had COMPLETED; the test may do as it likes."""
    federation, copy = completed
    shutil.rmtree(federation.root)
    shutil.copytree(copy, federation.root)
    return federation


@pytest.fixture
def make_model(came, tmp_path):
    """Write the model of the newest run, as a coordinator would."""

    def make(*words, name="model"):
        folder = tmp_path / name
        invoke(aggregator, "model", "latest", "-o", folder, "--dir", came.folder.root, *words)
        return folder

    return make


def audited(folder, *words):
    """The exit code of `cairn-audit model` and what it says of each thing."""
    done = invoke(auditor, "model", folder, "--json", *words)
    return done.exit_code, json.loads(done.stdout)


def broken(folder, *words):
    """What does not hold; the exit code goes with it."""
    code, told = audited(folder, *words)
    assert code == (4 if told["broken"] else 0)
    assert told["passed"] is not bool(told["broken"])
    return told["broken"]


def ledgers(federation, *sites):
    return [word for site in sites or SITES for word in ("--ledger", federation.sites[site].ledger)]


def resign(folder, key, **changes):
    """Sign another provenance, as only the holder of a key can."""
    about = json.loads((folder / "provenance.json").read_bytes()) | changes
    files = {name: sha256_hex((folder / name).read_bytes()) for name in about["files"]}
    data = canonical_json(about | {"files": files})
    (folder / "provenance.json").write_bytes(data)
    (folder / "provenance.sig").write_bytes(sign_provenance(data, key))


def change_json(path, change):
    value = json.loads(path.read_bytes())
    change(value)
    path.write_text(json.dumps(value))


# What comes out.


def test_a_completed_run_gives_a_model_that_its_sites_own_ledgers_bear_out(came, make_model):
    folder = make_model("--sums")
    witness = came.folder.pki / "witness.pub"
    code, told = audited(folder, "--witness", witness, *ledgers(came))
    assert (code, told["broken"]) == (0, [])
    holds = {check["name"]: check["holds"] for check in told["checks"]}
    assert all(holds.values()), told["checks"]
    assert {"signature", "sums", "settings", "card"} <= set(holds)
    for site in SITES:
        assert {f"{site}: rounds", f"{site}: sums", f"{site}: weights"} <= set(holds)


def test_without_sums_and_ledgers_what_was_not_seen_is_said_and_nothing_fails(make_model):
    code, told = audited(make_model())
    unseen = {check["name"] for check in told["checks"] if check["holds"] is None}
    assert code == 0
    assert unseen == {"sums", *(f"{site}: ledger" for site in SITES)}
    text = invoke(auditor, "model", make_model(name="again")).stdout
    assert "nothing disagrees; 4 things could not be looked at" in text
    assert "the folder agrees with itself" in text


def test_the_folder_is_a_checkpoint_of_the_plans_agent(came, make_model, momentum_plan):
    checkpoint = read_checkpoint(make_model())
    (run,) = came.folder.run_names()
    assert checkpoint.landmarks == ("AC", "PC")
    assert checkpoint.prior_mm is None
    assert checkpoint.origin == f"federated run {run}"
    for section in ("task", "ladder", "pose", "network", "learner", "evaluation"):
        assert getattr(checkpoint.config, section) == getattr(momentum_plan, section)


def test_the_same_run_gives_the_same_bytes(make_model):
    one, other = make_model("--sums"), make_model("--sums", name="again")
    names = sorted(p.relative_to(one) for p in one.rglob("*") if p.is_file())
    assert len(names) == 8 + 3
    for name in names:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


def test_the_card_says_what_it_is_and_what_it_is_not_for(came, make_model):
    page = (make_model() / "card.md").read_text()
    for words in ("AC, PC", "3 sites with 6 images", "not a medical device", "other contrasts"):
        assert words in page
    assert all(f"| {site} | 2 | 3 |" in page for site in SITES)


def test_a_degraded_run_gives_a_model_and_its_card_says_so(
    three, momentum_plan, moving_here, tmp_path
):
    store, transport = three.create_run(momentum_plan, min_sites=3), three.transport()
    transport.silent.add(102)
    assert three.conduct(store, transport).verdict == "DEGRADED"
    folder = tmp_path / "model"
    invoke(aggregator, "model", store.name, "-o", folder, "--sums", "--dir", three.folder.root)
    page = (folder / "card.md").read_text()
    assert "**DEGRADED**" in page
    assert "site-c" not in page.partition("## What it was made of")[2]
    assert broken(folder, *ledgers(three, "site-a", "site-b")) == []


@pytest.mark.usefixtures("moving_here")
def test_a_run_that_failed_or_goes_on_has_no_model(three, no_op_plan, tmp_path):
    store, transport = three.create_run(no_op_plan, min_sites=3), three.transport()
    words = ("model", "latest", "-o", tmp_path / "model", "--dir", three.folder.root)
    with pytest.raises(RefusedError, match="not come to a model"):
        invoke(aggregator, *words)
    transport.silent |= {100, 101}
    assert three.conduct(store, transport).verdict == "FAILED"
    with pytest.raises(RefusedError, match="got FAILED"):
        invoke(aggregator, *words)
    assert not (tmp_path / "model").exists()


def test_a_model_is_not_written_over_anything(make_model):
    folder = make_model()
    with pytest.raises(UsageError, match="not written over"):
        make_model()
    assert broken(folder) == []


def test_another_model_in_the_runs_folder_is_not_given_out(came, make_model):
    (run,) = came.folder.run_names()
    change_json(
        came.folder.run(run) / "rounds" / "0004" / "round.json",
        lambda about: about["arrays"].update({"model.safetensors": "0" * 64}),
    )
    with pytest.raises(InputDataError, match="was changed"):
        make_model()


def test_a_plan_starts_from_the_folder_and_its_own_model_is_borne_out_too(
    came, make_model, momentum_plan, tmp_path
):
    first = make_model()
    digest = decode_provenance((first / "provenance.json").read_bytes()).weights
    plan = parse_plan(momentum_plan.model_dump(mode="json") | {"start": digest})
    store = came.create_run(plan, name="run-2", min_sites=3)
    assert came.conduct(store, came.transport()).verdict == "COMPLETED"
    second = make_model("--sums", name="second")
    assert loaded_weights((second / "start.safetensors").read_bytes()).keys()
    assert broken(second, *ledgers(came)) == []
    (second / "start.safetensors").unlink()
    assert broken(second) == ["sums"]


def test_a_coordinator_elsewhere_gets_the_same_bytes(came, make_model, tmp_path):
    here = make_model("--sums")
    port = free_ports(4)
    for path in (came.folder.settings_file, came.folder.root / "coordinator.toml"):
        text = path.read_text()
        path.write_text(text.replace("9443", str(port)).replace("9445", str(port + 2)))
    server = DeskServer(came.folder)
    server.start()
    try:
        there, desk = tmp_path / "there", came.folder.root / "coordinator.toml"
        invoke(aggregator, "model", "latest", "-o", there, "--sums", "--desk", desk)
        with pytest.raises(InputDataError, match="no such run"):
            invoke(aggregator, "model", "run-9", "-o", tmp_path / "nine", "--desk", desk)
    finally:
        server.stop()
    for path in here.rglob("*"):
        if path.is_file():
            assert (there / path.relative_to(here)).read_bytes() == path.read_bytes(), path
    assert broken(there) == []


def test_a_desk_that_names_a_file_elsewhere_writes_nothing(tmp_path):
    for name in ("../evil", "/etc/passwd", "sums/../../evil", "sums/0001.cairn/x", "evil.py"):
        with (
            pytest.raises(RefusedError, match="not a file of a model"),
            new_folder(tmp_path / "model", [(name, b"evil")]),
        ):
            pass
    assert list(tmp_path.iterdir()) == []


def test_the_exit_codes_are_stable(came, make_model, capsys, tmp_path):
    folder = make_model()
    (folder / "card.md").write_text("another")
    words = ["model", str(folder), "--json"]
    for program, line, expected in (
        (auditor, words, 4),
        (auditor, ["model", str(tmp_path / "nothing")], 6),
        (auditor, ["model", str(folder), "--key", "k"], 2),
        (aggregator, ["model", "latest", "-o", str(folder), "--dir", str(came.folder.root)], 2),
    ):
        with pytest.raises(SystemExit) as ended:
            run(program, line)
        assert ended.value.code == expected, line
    capsys.readouterr()


def test_round_start_takes_the_folder_and_names_one_without_a_model(
    came, make_model, momentum_plan, tmp_path
):
    folder, path = make_model(), tmp_path / "plan.toml"
    digest = decode_provenance((folder / "provenance.json").read_bytes()).weights
    words = ("round", "start", path, "--model", folder, "--dir", came.folder.root, "--json")
    path.write_text(tomli_w.dumps(momentum_plan.model_dump(mode="json") | {"start": digest}))
    with pytest.raises(UnreachableError):  # all is well but that no SuperLink runs
        invoke(aggregator, *words)
    path.write_text(tomli_w.dumps(momentum_plan.model_dump(mode="json") | {"start": "ab" * 32}))
    with pytest.raises(InputDataError, match="not the model that the plan starts from"):
        invoke(aggregator, *words)
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputDataError, match="no model in this folder"):
        invoke(aggregator, *words)


# Every way of tampering is found, and named.


def bump(data, name="fc1.bias"):
    weights = {n: np.array(a) for n, a in safetensors.numpy.load(data).items()}
    weights[name][0] += np.float32(1e-3)
    return weights


def test_other_weights_are_found(came, make_model):
    folder = make_model("--sums")
    path = folder / "model.safetensors"
    path.write_bytes(saved(bump(path.read_bytes())))
    assert broken(folder) == ["model.safetensors", "weights"]
    path.write_bytes(b"junk")
    assert broken(folder) == ["model.safetensors", "weights"]
    path.unlink()
    assert broken(folder) == ["model.safetensors", "weights"]


def test_weights_that_the_aggregator_itself_bent_are_not_what_the_sums_give(came, make_model):
    """It holds the key, so it can sign anything; the sums and the sites' ledgers say otherwise."""
    folder = make_model("--sums")
    path = folder / "model.safetensors"
    weights = bump(path.read_bytes())
    path.write_bytes(saved(weights))
    digest = weights_digest(weights)
    change_json(folder / "card.json", lambda card: card.update(weights=digest))
    resign(folder, read_signing_key(came.folder.pki / "witness.key"), weights=digest)
    found = broken(folder, *ledgers(came))
    assert {"sums", *(f"{site}: weights" for site in SITES)} <= set(found)
    assert not {"signature", "weights", "model.safetensors"} & set(found)


def test_another_plan_is_found(make_model):
    folder = make_model()
    path = folder / "plan.json"
    plan = json.loads(path.read_bytes())
    path.write_bytes(canonical_json(plan | {"seed": 4}))
    assert {"plan.json", "plan"} <= set(broken(folder))
    path.write_bytes(b"{}")
    assert {"plan.json", "plan"} <= set(broken(folder))


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda c: c["config"]["task"].update(spacing_mm=2.0), "task.spacing_mm"),
        (lambda c: c["config"]["evaluation"].update(starts=1), "evaluation.starts"),
        (lambda c: c["config"].update(data={"images": "/etc"}), "data.images"),
        (lambda c: c.update(landmarks=["PC", "AC"]), "landmarks"),
        (lambda c: c.pop("config"), "checkpoint.json"),
    ],
)
def test_other_settings_than_the_plans_are_found_and_named(make_model, change, field):
    folder = make_model()
    change_json(folder / "checkpoint.json", change)
    code, told = audited(folder)
    assert code == 4
    assert told["broken"] == ["checkpoint.json", "settings"]
    (says,) = [check["says"] for check in told["checks"] if check["name"] == "settings"]
    assert field in says


def test_a_prettier_card_is_found(make_model):
    folder = make_model()
    page = folder / "card.md"
    page.write_text(
        page.read_text().replace("It is not a medical device", "It is a medical device")
    )
    assert broken(folder) == ["card.md", "card"]
    change_json(folder / "card.json", lambda card: card.update(verdict="DEGRADED"))
    assert broken(folder) == ["card.json", "card.md", "card"]


def test_another_provenance_is_found_by_its_signature_and_by_what_it_says(came, make_model):
    folder = make_model("--sums")
    path = folder / "provenance.json"
    about = json.loads(path.read_bytes())
    about["rounds"][1]["sites"] = ["site-a", "site-b"]
    path.write_bytes(canonical_json(about))
    assert broken(folder, *ledgers(came)) == ["signature", "sums"]
    key = read_signing_key(came.folder.pki / "witness.key")
    resign(folder, key)
    assert broken(folder) == ["sums"]
    about["rounds"][1]["sites"] = ["site-a", "site-b", "site-z"]
    path.write_bytes(canonical_json(about))
    resign(folder, key)
    assert broken(folder) == ["rounds", "sums"]


def test_another_sum_in_the_provenance_breaks_the_chain_and_the_sites_orders(came, make_model):
    folder = make_model()
    about = json.loads((folder / "provenance.json").read_bytes())
    about["rounds"][1]["sum_sha256"] = "ab" * 32
    key = read_signing_key(came.folder.pki / "witness.key")
    resign(folder, key, rounds=about["rounds"])
    assert broken(folder) == ["chain"]
    assert "site-b: sums" in broken(folder, *ledgers(came, "site-b"))


def test_a_signature_that_is_not_the_aggregators_is_found(came, make_model):
    folder = make_model()
    path = folder / "provenance.sig"
    whole = path.read_bytes()
    for bent in (b"", b"zz", whole[:-3], bytes([whole[0] ^ 1]) + whole[1:]):
        path.write_bytes(bent)
        assert broken(folder) == ["signature"]


def test_another_aggregators_key_is_found_by_whoever_knows_the_right_one(came, make_model):
    folder, other = make_model(), SigningKey.generate()
    resign(folder, other)
    (folder / "witness.pub").write_text(f"{other.public.text}\n")
    assert broken(folder) == [], "a folder alone agrees with itself"
    assert broken(folder, "--witness", came.folder.pki / "witness.pub") == ["signature"]
    found = broken(folder, *ledgers(came, "site-a"))
    assert found == ["site-a: aggregator's key"]


def test_a_changed_or_missing_sum_is_found_and_named(came, make_model):
    folder = make_model("--sums")
    path = folder / "sums" / "0002.cairn"
    total = decode_sum(path.read_bytes())
    array = next(iter(total.group("ModelUpdate").summand.arrays.values()))
    array.flat[0] += 1
    path.write_bytes(encode_sum(total))
    code, told = audited(folder)
    (says,) = [check["says"] for check in told["checks"] if check["name"] == "sums"]
    assert (code, told["broken"]) == (4, ["sums"])
    assert "sums/0002.cairn" in says
    path.unlink()
    assert broken(folder) == ["sums"]


def test_a_ledger_that_lacks_what_the_model_claims_is_named(came, make_model, tmp_path):
    folder = make_model()
    site = came.sites["site-b"]
    empty = tmp_path / "empty"
    key = read_signing_key(site.ledger_key)
    Ledger.open(empty, ledger_origin("site-b"), key, lambda: datetime.now(UTC)).close()
    assert broken(folder, "--ledger", empty) == ["site-b: rounds"]


def test_a_ledger_of_another_key_or_an_altered_one_proves_nothing(came, make_model, tmp_path):
    folder = make_model()
    about = json.loads((folder / "provenance.json").read_bytes())
    about["roster"][0]["ledger_key"] = "cd" * 32
    stranger = tmp_path / "stranger"
    shutil.copytree(folder, stranger)
    key = read_signing_key(came.folder.pki / "witness.key")
    resign(stranger, key, roster=about["roster"])
    assert {"chain", "site-a: ledger"} <= set(broken(stranger, *ledgers(came, "site-a")))
    copy = tmp_path / "ledger"
    shutil.copytree(came.sites["site-a"].ledger, copy)
    log = (copy / "log.jsonl").read_bytes()
    (copy / "log.jsonl").write_bytes(log.replace(b'"ModelUpdate"', b'"ModelUpd4te"', 1))
    assert broken(folder, "--ledger", copy) == ["site-a: ledger"]


def test_a_ledger_without_its_archive_vouches_for_no_model(came, make_model, tmp_path):
    copy = tmp_path / "ledger"
    shutil.copytree(came.sites["site-a"].ledger, copy)
    shutil.rmtree(copy / "payloads")
    code, told = audited(make_model(), "--ledger", copy)
    assert code == 4
    (ledger,) = [check for check in told["checks"] if check["name"] == "site-a: ledger"]
    assert ledger["holds"] is False
    assert "is missing" in ledger["says"]


def test_another_folder_is_no_model(tmp_path):
    for place in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(InputDataError, match="not a model's folder"):
            invoke(auditor, "model", place)
