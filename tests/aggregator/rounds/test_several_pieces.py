"""Several pieces in one call, to a real SuperLink on a disk: what single calls do, and no more."""

from __future__ import annotations

import logging
import shutil
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import httpx
import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Message, RecordDict
from flwr.proto.message_pb2 import (
    PullObjectRequest,
    PullObjectResponse,
    PushObjectRequest,
    PushObjectResponse,
)
from flwr.proto.node_pb2 import Node
from flwr.proto.runtime_pb2 import AcquireTaskRequest, AcquireTaskResponse
from flwr.supercore.constant import NOOP_FEDERATION_ID
from flwr.supercore.corestate.sql_corestate import ObjectPushSessionModel, SqlCoreState
from flwr.supercore.error import ApiErrorCode, FlowerError
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.sql_mixin import _current_sessions
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink import main as superlink
from sqlalchemy import select

from aggregator.rounds.completed import PUSH_SEVERAL, Completed
from aggregator.rounds.guarded_superlink import SitesOnly
from aggregator.rounds.one_transaction import at_once, shares_one_database
from aggregator.rounds.short_road import SWEEP_S, sweep_seldom
from common.wire.several import PULL_PIECES, PUSH_PIECES, join, split
from common.wire.transport import MESSAGE_TYPE, PARCEL, RECORD
from tests.aggregator.rounds.test_short_road import PUBLIC, ask, signed

pytestmark = pytest.mark.filterwarnings("ignore:No path_separator found:DeprecationWarning")
PULL, PUSH = f"/v1/fleet/{PULL_PIECES}", f"/v1/fleet/{PUSH_PIECES}"
ACQUIRE = "/v1/runtime/acquire-task"
TASK = "flwr-serverapp"


@pytest.fixture(scope="module")
def blank(tmp_path_factory):
    """A database as Flower makes it, which takes a while, with nothing in it."""
    logging.getLogger("flwr").setLevel("CRITICAL")
    path = tmp_path_factory.mktemp("blank") / "link.db"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(superlink, "get_ee_linkstate_db", lambda: str(path))
        made = superlink.create_app().state.linkstate_factory.state()
    for each in (made, made.object_store):
        each._engine.dispose()
    return path


@pytest.fixture
def app(blank, tmp_path, monkeypatch):
    """Flower's SuperLink in this process, its database on the disk as ours is."""
    for path in blank.parent.iterdir():
        shutil.copy(path, tmp_path)
    monkeypatch.setattr(superlink, "get_ee_linkstate_db", lambda: str(tmp_path / blank.name))
    return superlink.create_app()


@pytest.fixture
def state(app):
    return app.state.linkstate_factory.state()


def new_run(state) -> int:
    return state.create_run(None, None, "a" * 64, {}, NOOP_FEDERATION_ID, None, "account", TASK)


@pytest.fixture
def link(app, state, monkeypatch) -> SimpleNamespace:
    """A run that runs, and a message to a node of which no piece is there yet."""
    node = state.create_node("account", "name", PUBLIC, 30)
    assert state.activate_node(node, 30)
    run = new_run(state)
    task = state.get_tasks(run_ids=[run])[0].task_id
    token = state.claim_task(task)
    assert state.activate_task(task)
    for name, value in {"_task_id": task, "_run_id": run, "_node_id": 1}.items():
        monkeypatch.setattr(TaskIdentity, name, value)
    array = Array(np.arange(5000, dtype=np.uint8))
    content = RecordDict({RECORD: ArrayRecord({PARCEL: array})})
    message = Message(content, node, MESSAGE_TYPE, ttl=60.0)
    message.metadata.__dict__["_message_id"] = message.object_id
    session = state.start_session(run)
    stored, missing = state.store_message_and_object_tree(
        message, get_object_tree(message), session
    )
    objects = {name: each.deflate() for name, each in get_all_nested_objects(message).items()}
    assert stored
    assert set(missing) == set(objects)
    return SimpleNamespace(
        app=app, node=Node(node_id=node), run=run, session=session, objects=objects, token=token
    )


def pushes(link, **changes) -> list[PushObjectRequest]:
    common = {"node": link.node, "run_id": link.run, "session_id": link.session, **changes}
    return [
        PushObjectRequest(object_id=name, object_content=data, **common)
        for name, data in link.objects.items()
    ]


def pulls(link, **changes) -> list[PullObjectRequest]:
    common = {"node": link.node, "run_id": link.run, **changes}
    return [PullObjectRequest(object_id=name, **common) for name in link.objects]


def several(link, path: str, requests, headers=None) -> tuple[int, bytes]:
    body = join([each.SerializeToString() for each in requests])
    return ask(SitesOnly(link.app), link.app, path, body, headers or signed())


def stored(answer: bytes) -> list[bool]:
    return [PushObjectResponse.FromString(part).stored for part in split(answer)]


def test_pieces_pushed_at_once_are_there_and_come_back_at_once(link):
    status, answer = several(link, PUSH, pushes(link))
    assert (status, stored(answer)) == (200, [True] * 5)
    status, answer = several(link, PULL, pulls(link))
    came = [PullObjectResponse.FromString(part) for part in split(answer)]
    assert status == 200
    assert [each.object_content for each in came] == list(link.objects.values())
    assert all(each.object_available for each in came)


def test_each_single_call_answers_as_the_call_for_several(link):
    several(link, PUSH, pushes(link)[:3])
    _, answer = several(link, PULL, [*pulls(link), pulls(link)[0]])
    for request, part in zip(pulls(link), split(answer), strict=False):
        body = request.SerializeToString()
        _, alone = ask(SitesOnly(link.app), link.app, "/v1/fleet/pull-object", body, signed())
        assert alone == part


def test_a_piece_that_is_not_what_its_name_says_is_not_taken_and_the_others_are(link):
    bent = pushes(link)
    bent[1].object_content = b"another"
    assert stored(several(link, PUSH, bent)[1]) == [True, False, True, True, True]
    assert stored(several(link, PUSH, pushes(link))[1]) == [False, True, False, False, False]


def test_an_answer_holds_so_many_bytes_and_the_rest_is_asked_for_alone(link, monkeypatch):
    several(link, PUSH, pushes(link))
    monkeypatch.setattr("aggregator.rounds.several_pieces.MOST_BYTES", 5200)
    parts = split(several(link, PULL, pulls(link))[1])
    came = [PullObjectResponse.FromString(part) for part in parts]
    assert all(each.object_found for each in came)
    assert not all(each.object_available for each in came)
    assert sum(len(each.object_content) for each in came) <= 5200


@pytest.mark.parametrize(
    "change", [{"node": Node(node_id=9)}, {"run_id": 9}, {"session_id": "another"}]
)
def test_pieces_of_two_nodes_runs_or_pushes_are_no_call(link, change):
    mixed = [pushes(link)[0], pushes(link, **change)[1]]
    assert several(link, PUSH, mixed)[0] == 400
    assert stored(several(link, PUSH, pushes(link))[1]) == [True] * 5, "nothing was taken"


def test_who_may_not_ask_for_one_may_not_ask_for_several(link):
    assert several(link, PULL, pulls(link, node=Node(node_id=link.node.node_id + 1)))[0] == 401
    assert several(link, PULL, pulls(link), signed(age_s=3600))[0] == 401
    assert several(link, PUSH, pushes(link), signed()[:1])[0] == 401


def test_a_run_that_is_over_takes_no_pieces(link, state):
    task = state.get_tasks(run_ids=[link.run])[0].task_id
    assert state.finish_task(task, "completed", "")
    alone = ask(
        SitesOnly(link.app),
        link.app,
        "/v1/fleet/push-object",
        pushes(link)[0].SerializeToString(),
        signed(),
    )
    assert several(link, PUSH, pushes(link)) == alone
    assert alone[0] == 403


@pytest.mark.parametrize("body", [b"", b"\0\0\0\3x", join([b"\xff\xff\xff"])])
def test_what_is_no_call_for_several_is_refused(link, body):
    assert ask(SitesOnly(link.app), link.app, PULL, body, signed())[0] == 400


def test_the_serverapp_asks_for_several_with_its_token_and_not_without(link):
    headers = [(b"content-type", b"application/protobuf")]
    ours = {"node": Node(node_id=1)}
    path = f"/v1/runtime/{PUSH_PIECES}"
    assert several(link, path, pushes(link, **ours), headers)[0] == 401
    headers.append((b"flwr-task-token", link.token.encode()))
    assert stored(several(link, path, pushes(link, **ours), headers)[1]) == [True] * 5
    path = f"/v1/runtime/{PULL_PIECES}"
    status, answer = several(link, path, pulls(link, **ours), headers)
    came = [PullObjectResponse.FromString(part).object_content for part in split(answer)]
    assert (status, came) == (200, list(link.objects.values()))
    assert several(link, path, pulls(link), headers)[0] >= 400, "as a node that it is not"


def test_pieces_pushed_at_once_complete_a_reply(link):
    said: list[str] = []
    completed = Completed(lambda: said.append("complete"))
    completed._announced(link.session, link.objects)
    body = join([each.SerializeToString() for each in pushes(link)])
    status, _ = ask(SitesOnly(link.app, completed), link.app, PUSH_SEVERAL, body, signed())
    assert (status, said) == (httpx.codes.OK, ["complete"])


def test_a_task_is_claimed_once_by_whichever_road_and_however_many_ask(app, state):
    tasks = {state.get_tasks(run_ids=[new_run(state)])[0].task_id for _ in range(4)}
    body = AcquireTaskRequest(supported_task_types=[TASK]).SerializeToString()
    headers = [(b"content-type", b"application/protobuf")]
    # One each: a guard holds questions in one event loop, and here every thread has its own.
    doors = [SitesOnly(app) if k % 2 else app for k in range(24)]

    def claim(door) -> AcquireTaskResponse:
        status, answer = ask(door, app, ACQUIRE, body, headers)
        assert status == 200
        return AcquireTaskResponse.FromString(answer)

    with ThreadPoolExecutor(8) as threads:
        claimed = [each for each in threads.map(claim, doors) if each.token]
    assert sorted(each.task.task_id for each in claimed) == sorted(tasks)
    assert len({each.token for each in claimed}) == len(tasks)


def test_tasks_without_a_heartbeat_are_looked_for_four_times_a_second(monkeypatch, state):
    swept: list[object] = []
    now = [100.0]
    monkeypatch.setattr(SqlCoreState, "_cleanup_expired_task_tokens", swept.append)
    sweep_seldom(lambda: now[0])
    for _ in range(10):
        state.get_run_status(set())
    assert swept == [state]
    now[0] += SWEEP_S
    state.get_run_status(set())
    assert swept == [state, state]


def test_a_call_is_one_transaction_and_one_that_is_not_whole_is_worked_on_as_flower_does(state):
    assert shares_one_database(state)
    run = new_run(state)
    seen: list[bool] = []

    def begin() -> str:
        seen.append(bool(_current_sessions.get()))
        return state.start_session(run)

    kept = at_once(state, begin)
    assert seen == [True]
    seen.clear()
    last = at_once(state, begin, lambda _: False)
    assert seen == [True, False]
    with state.session() as session:
        names = set(session.scalars(select(ObjectPushSessionModel.session_id)))
    assert names == {kept, last}, "the first try left nothing"


def test_what_a_handler_raises_is_raised_by_its_second_try_and_leaves_what_flower_leaves(state):
    run = new_run(state)
    tries: list[str] = []

    def fail() -> None:
        tries.append(state.start_session(run))
        raise FlowerError(ApiErrorCode.RUN_ID_NOT_FOUND, "gone")

    with pytest.raises(FlowerError):
        at_once(state, fail)
    with state.session() as session:
        names = set(session.scalars(select(ObjectPushSessionModel.session_id)))
    assert len(tries) == 2
    assert names == {tries[1]}


def test_a_superlink_in_memory_has_no_transactions():
    memory = superlink.create_app().state.linkstate_factory.state()
    assert not shares_one_database(memory)
    assert at_once(memory, lambda: "answer", lambda _: False) == "answer"
