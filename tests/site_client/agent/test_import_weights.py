"""Foreign weights: exactly the tensors that are in the file, and never a run of what is in it."""

from __future__ import annotations

import io
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from common.errors import InputDataError
from site_client.agent.import_weights import (
    as_rl_medical_saw,
    from_rl_medical,
    import_rl_medical,
    in_the_world,
    onto_voxels,
)
from site_client.agent.network import set_weights
from site_client.agent.networks import build_network
from site_client.agent.networks.torch_files import read_torch_file
from site_client.agent.tasks.geometry import Ladder
from site_client.agent.tasks.landmark3d import Landmark3D, build_cases_3d
from site_client.agent.tasks.views import Views
from site_client.imaging.dataset import Case
from site_client.imaging.volumes import Volume

both_formats = pytest.mark.parametrize("zipped", [True, False])


# --- a minimal writer of both formats, since our own code may not write pickles -----------------


def text(value: str) -> bytes:
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def number(value: int) -> bytes:
    return b"\x8a" + bytes([9]) + value.to_bytes(9, "little", signed=True)


def numbers(values) -> bytes:
    return b"(" + b"".join(number(value) for value in values) + b"t"


def storage(key: str, count: int, kind: str = "FloatStorage", *, zipped: bool = True) -> bytes:
    body = text("storage") + f"ctorch\n{kind}\n".encode() + text(key) + text("cpu") + number(count)
    return b"(" + body + (b"" if zipped else b"N") + b"tQ"


def tensor(held: bytes, shape, strides, offset: int = 0) -> bytes:
    empty = b"ccollections\nOrderedDict\n)R"
    arguments = held + number(offset) + numbers(shape) + numbers(strides) + b"\x89" + empty
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + arguments + b"tR"


def described(items: dict[str, bytes]) -> bytes:
    body = b"".join(text(name) + value for name, value in items.items())
    return b"\x80\x02ccollections\nOrderedDict\n)R(" + body + b"u."


def zip_file(path: Path, program: bytes, storages: dict[str, bytes], method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("archive/data.pkl", program)
        archive.writestr("archive/version", "3\n")
        for key, raw in storages.items():
            archive.writestr(f"archive/data/{key}", raw)
    return path


def stream_file(path: Path, program: bytes, storages: dict[str, bytes], itemsize: int = 4):
    magic = b"\x80\x02\x8a\x0a" + (0x1950A86A20F9469CFC6C).to_bytes(10, "little") + b"."
    system = b"\x80\x02}(" + text("little_endian") + b"\x88u."
    keys = b"\x80\x02](" + b"".join(text(key) for key in storages) + b"e."
    raw = b"".join(struct.pack("<q", len(v) // itemsize) + v for v in storages.values())
    path.write_bytes(magic + b"\x80\x02M\xe9\x03." + system + program + keys + raw)
    return path


def written(tmp_path: Path, program: bytes, storages: dict[str, bytes], *, zipped: bool) -> Path:
    return (zip_file if zipped else stream_file)(tmp_path / "weights.pt", program, storages)


SIX = np.arange(6, dtype="<f4")


@both_formats
@pytest.mark.parametrize("state", ["plain", "checkpoint"])
def test_what_torch_wrote_is_read_value_for_value(tmp_path, zipped, state):
    """Also views with strides and offsets, shared storages, scalars and other types."""
    layers = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    table = layers.state_dict()
    base = torch.arange(24.0).reshape(4, 6)
    table |= {"turned": base.t(), "part": base[1:3, 2:5], "double": torch.rand(2).double()}
    table |= {"half": torch.rand(3).half(), "empty": torch.zeros(0, 3), "one": torch.tensor(3)}
    saved = table if state == "plain" else {"q_network_state_dict": table, "eps": 0.5, "x": [1, ()]}
    buffer = io.BytesIO()
    writer = torch.save  # noqa: TID251 (the peer whose files we read)
    writer(saved, buffer, _use_new_zipfile_serialization=zipped)
    (tmp_path / "weights.pt").write_bytes(buffer.getvalue())
    found = read_torch_file(tmp_path / "weights.pt")
    assert list(found) == list(table)
    for name, value in table.items():
        assert found[name].dtype == value.numpy().dtype, name
        assert np.array_equal(found[name], value.numpy()), name


@both_formats
def test_a_description_written_by_hand_is_read(tmp_path, zipped):
    program = described({"w": tensor(storage("0", 6, zipped=zipped), (3, 2), (1, 3))})
    path = written(tmp_path, program, {"0": SIX.tobytes()}, zipped=zipped)
    assert np.array_equal(read_torch_file(path)["w"], SIX.reshape(2, 3).T)


@both_formats
@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"),
        ("posix", "system"),
        ("builtins", "eval"),
        ("builtins", "getattr"),
        ("torch", "load"),
        ("torch._utils", "_rebuild_tensor_v3"),
        ("torch.FloatStorage", "__class__"),
        ("collections", "defaultdict"),
        ("", "torch.FloatStorage"),
    ],
)
def test_code_in_a_weights_file_is_refused_by_name_and_never_run(tmp_path, zipped, module, name):
    witness = tmp_path / "it-ran"
    call = f"c{module}\n{name}\n(".encode() + text(f"touch {witness}") + b"tR"
    path = written(tmp_path, described({"w": call}), {}, zipped=zipped)
    with pytest.raises(InputDataError, match="wants to run code") as refusal:
        read_torch_file(path)
    assert f"{module}.{name}" in str(refusal.value)
    assert not witness.exists()


def test_code_by_the_newer_opcode_for_names_is_refused(tmp_path):
    witness = tmp_path / "it-ran"
    call = text("os") + text("system") + b"\x93" + text(f"touch {witness}") + b"\x85R"
    with pytest.raises(InputDataError, match=r"wants to run code.*STACK_GLOBAL"):
        read_torch_file(zip_file(tmp_path / "w.pt", b"\x80\x04" + call + b".", {}))
    assert not witness.exists()


def test_a_pickled_command_of_pythons_own_making_is_refused(tmp_path):
    """What an attacker would really send: the bytes of a reduced os.system call."""
    witness = tmp_path / "it-ran"
    command = text(f"touch {witness}")
    for program in (
        b"\x80\x02cposix\nsystem\n" + command + b"\x85R.",
        b"(S'touch it-ran'\nios\nsystem\n.",
        b"(cos\nsystem\nS'touch it-ran'\no.",
        b"\x80\x02cos\nsystem\n" + command + b"\x85\x81.",
        b"\x80\x02\x82\x01.",
    ):
        with pytest.raises(InputDataError, match="weights file"):
            read_torch_file(zip_file(tmp_path / "w.pt", program, {}))
    assert not witness.exists()
    assert not Path("it-ran").exists()


def test_a_refused_name_cannot_disturb_the_terminal(tmp_path):
    path = zip_file(tmp_path / "w.pt", b"\x80\x02cos\n\x1b[2Jsystem" + b"x" * 500 + b"\n.", {})
    with pytest.raises(InputDataError) as refusal:
        read_torch_file(path)
    assert "\x1b" not in str(refusal.value)
    assert len(refusal.value.got) <= 80


@both_formats
@pytest.mark.parametrize("count", [7, 10**6, 2**62, -1])
def test_a_storage_that_is_not_the_size_it_says_is_refused(tmp_path, zipped, count):
    program = described({"w": tensor(storage("0", count, zipped=zipped), (6,), (1,))})
    path = written(tmp_path, program, {"0": SIX.tobytes()}, zipped=zipped)
    with pytest.raises(InputDataError, match="weights file"):
        read_torch_file(path)


@pytest.mark.parametrize(
    ("shape", "strides", "offset"),
    [
        ((7,), (1,), 0),
        ((6,), (1,), 1),
        ((2, 3), (4, 1), 0),
        ((1000, 1000, 1000), (0, 0, 0), 0),
        ((6,), (-1,), 5),
        ((-6,), (1,), 0),
        ((2, 3), (1,), 0),
    ],
)
def test_a_tensor_beyond_its_storage_is_refused(tmp_path, shape, strides, offset):
    program = described({"w": tensor(storage("0", 6), shape, strides, offset)})
    with pytest.raises(InputDataError, match="damaged"):
        read_torch_file(zip_file(tmp_path / "w.pt", program, {"0": SIX.tobytes()}))


def test_a_compressed_archive_is_refused_before_it_is_unpacked(tmp_path):
    """Torch compresses nothing; a small file that unpacks to gigabytes is not from it."""
    program = described({"w": tensor(storage("0", 10**7), (10**7,), (1,))})
    bomb = {"0": bytes(4 * 10**7)}
    path = zip_file(tmp_path / "w.pt", program, bomb, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 10**6
    with pytest.raises(InputDataError, match="uncompressed"):
        read_torch_file(path)


def test_one_storage_described_twice_differently_shows_nothing_beyond_its_bytes(tmp_path):
    program = described(
        {
            "a": tensor(storage("0", 6), (6,), (1,)),
            "b": tensor(storage("0", 6, "DoubleStorage"), (6,), (1,)),
        }
    )
    path = zip_file(tmp_path / "w.pt", program, {"0": SIX.tobytes()})
    try:
        found = read_torch_file(path)
    except InputDataError:
        return
    assert all(value.nbytes <= SIX.nbytes for value in found.values())


@both_formats
def test_a_storage_of_a_terabyte_in_a_file_of_a_kilobyte_is_refused(tmp_path, zipped):
    huge = 1 << 38
    program = described({"w": tensor(storage("0", huge, zipped=zipped), (huge,), (1,))})
    path = written(tmp_path, program, {"0": SIX.tobytes()}, zipped=zipped)
    with pytest.raises(InputDataError, match="weights file"):
        read_torch_file(path)


def test_many_names_for_one_number_are_not_laid_out(tmp_path):
    program = described({"w": tensor(storage("0", 6), (1 << 20, 1 << 10), (0, 0))})
    path = zip_file(tmp_path / "w.pt", program, {"0": SIX.tobytes()})
    with pytest.raises(InputDataError, match="no larger than what the file holds"):
        read_torch_file(path)


def test_torch_reads_the_archive_that_was_looked_at_and_no_other_in_the_same_file(tmp_path):
    """One file, two archives: a reader that finds the other one would get what nobody checked."""
    inner = described({"w": tensor(storage("0", 6), (6,), (1,))})
    other = (SIX + 100).tobytes()
    hidden = zip_file(tmp_path / "hidden.pt", inner, {"0": other}).read_bytes()
    shown = zip_file(tmp_path / "w.pt", inner, {"0": SIX.tobytes()}).read_bytes()
    for both in (hidden + shown, shown + hidden):
        (tmp_path / "w.pt").write_bytes(both)
        looked_at = zipfile.ZipFile(tmp_path / "w.pt").read("archive/data/0")
        found = read_torch_file(tmp_path / "w.pt")["w"]
        assert found.tobytes() == looked_at


@pytest.mark.parametrize(
    "call",
    [
        b"cbuiltins\nbytearray\n(" + number(1 << 40) + b"tR",
        b"ctorch\nTensor\n(" + number(1 << 40) + b"tR",
        b"ctorch._tensor\n_rebuild_from_type_v2\n(tR",
        b"ccollections\nCounter\n(" + text("x") + b"tR",
    ],
)
def test_what_torch_itself_would_let_a_file_call_is_refused_as_well(tmp_path, call):
    """Each of these stands on torch's own list of what may be called."""
    with pytest.raises(InputDataError, match="wants to run code"):
        read_torch_file(zip_file(tmp_path / "w.pt", described({"w": call}), {}))


@pytest.mark.parametrize("program", [described({"w": number(3)}), b"\x80\x02].", b"\x80\x02K\x01."])
def test_a_file_without_tensors_is_refused(tmp_path, program):
    with pytest.raises(InputDataError, match="state_dict"):
        read_torch_file(zip_file(tmp_path / "w.pt", program, {}))


@settings(max_examples=60, deadline=None)
@given(zipped=st.booleans(), share=st.floats(0, 1, exclude_max=True))
def test_a_file_cut_off_anywhere_is_refused(tmp_path_factory, zipped, share):
    folder = tmp_path_factory.mktemp("cut")
    program = described({"w": tensor(storage("0", 6, zipped=zipped), (6,), (1,))})
    path = written(folder, program, {"0": SIX.tobytes()}, zipped=zipped)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(InputDataError, match="weights file"):
        read_torch_file(path)


@settings(max_examples=120, deadline=None)
@given(zipped=st.booleans(), places=st.lists(st.tuples(st.integers(0), st.integers(0, 255))))
def test_a_damaged_file_is_read_or_refused_and_nothing_else(tmp_path_factory, zipped, places):
    folder = tmp_path_factory.mktemp("damaged")
    program = described({"w": tensor(storage("0", 6, zipped=zipped), (3, 2), (2, 1))})
    path = written(folder, program, {"0": SIX.tobytes()}, zipped=zipped)
    raw = bytearray(path.read_bytes())
    for at, value in places:
        raw[at % len(raw)] = value
    path.write_bytes(raw)
    try:
        found = read_torch_file(path)
    except InputDataError:
        return
    assert sum(value.nbytes for value in found.values()) <= len(raw)


@settings(max_examples=120, deadline=None)
@given(program=st.binary(max_size=80))
def test_random_programs_end_in_a_refusal_or_in_tensors(tmp_path_factory, program):
    path = zip_file(tmp_path_factory.mktemp("random") / "w.pt", program, {})
    try:
        found = read_torch_file(path)
    except InputDataError:
        return
    assert all(isinstance(value, np.ndarray) for value in found.values())


# --- rl-medical's networks, written down a second time, loop by loop ----------------------------


def their_state(agents: int, *, talks: bool, attention: bool = False) -> dict[str, np.ndarray]:
    rng = np.random.Generator(np.random.PCG64(5))
    state: dict[str, np.ndarray] = OrderedDict()

    def draw(name, *shape):
        fan = max(1, int(np.prod(shape[1:])))
        state[name] = (rng.normal(size=shape) / np.sqrt(fan)).astype(np.float32)

    for i, (c, o, k) in enumerate(((4, 32, 5), (32, 32, 5), (32, 64, 4), (64, 64, 3))):
        draw(f"conv{i}.weight", o, c, k, k, k)
        draw(f"conv{i}.bias", o)
        draw(f"prelu{i}.weight", 1)
    for a in range(agents):
        for i, (c, o) in enumerate(((512, 256), (256, 128), (128, 6)), start=1):
            draw(f"fc{i}.{a}.weight", o, c * (1 + talks))
            draw(f"fc{i}.{a}.bias", o)
            if attention:
                draw(f"comm_att{i}.{a}", agents)
        draw(f"prelu4.{a}.weight", 1)
        draw(f"prelu5.{a}.weight", 1)
    return state


def their_values(state, seen: torch.Tensor, *, talks: bool, attention: bool) -> torch.Tensor:
    """float32[n, agents, 6] in their order of actions, of crops [n, agents, 4, x, y, z]."""
    s = {name: torch.from_numpy(value) for name, value in state.items()}
    agents = seen.shape[1]
    x = []
    for a in range(agents):
        y = seen[:, a]
        for i, padding in enumerate((1, 1, 1, 0)):
            y = functional.conv3d(y, s[f"conv{i}.weight"], s[f"conv{i}.bias"], padding=padding)
            y = functional.prelu(y, s[f"prelu{i}.weight"])
            y = functional.max_pool3d(y, 2) if i < 3 else y
        x.append(y.flatten(1))
    for i in (1, 2, 3):
        out = []
        for a in range(agents):
            mine = x[a]
            if talks:
                share = torch.full((agents,), 1 / agents)
                if attention:
                    share = torch.softmax(s[f"comm_att{i}.{a}"], 0)
                mine = torch.cat([mine, sum(share[b] * x[b] for b in range(agents))], 1)
            y = functional.linear(mine, s[f"fc{i}.{a}.weight"], s[f"fc{i}.{a}.bias"])
            out.append(functional.prelu(y, s[f"prelu{i + 3}.{a}.weight"]) if i < 3 else y)
        x = out
    return torch.stack(x, 1)


class _Sizes:
    shape, actions, heads, levels = (4, 45, 45, 45), 6, 1, 3

    def __init__(self, agents: int) -> None:
        self.agents = agents


@pytest.mark.parametrize(
    ("agents", "talks", "attention"), [(1, False, False), (2, True, False), (2, True, True)]
)
def test_an_imported_network_answers_as_theirs_on_turned_axes_and_reordered_actions(
    agents, talks, attention
):
    state = their_state(agents, talks=talks, attention=attention)
    imported = from_rl_medical(state | {"rew_att": np.zeros((agents, agents), np.float32)})
    assert (imported.agents, imported.frames) == (agents, 4)
    network = build_network(imported.settings, _Sizes(agents), torch.Generator())
    set_weights(network, imported.weights)
    crops = torch.rand((1, agents, 4, 45, 45, 45), generator=torch.Generator().manual_seed(2))
    zeros = torch.zeros(1, dtype=torch.long)
    ours = network(crops if agents > 1 else crops[:, 0], zeros, zeros).view(agents, 6)
    theirs = their_values(state, crops.permute(0, 1, 2, 5, 4, 3), talks=talks, attention=attention)[
        0
    ]
    z_up, y_up, x_up, x_down, y_down, z_down = theirs.T
    expected = torch.stack([x_up, x_down, y_up, y_down, z_up, z_down], 1)
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s.pop("fc2.0.bias"),
        lambda s: s.update({"fc9.0.bias": np.zeros(3, np.float32)}),
        lambda s: s.update({"fc2.0.bias": np.zeros(127, np.float32)}),
        lambda s: s.update({"fc2.0.bias": np.zeros(128, np.float64)}),
        lambda s: s.update({"fc2.0.bias": np.full(128, np.nan, np.float32)}),
        lambda s: s.update({"conv0.weight": np.zeros((32, 4), np.float32)}),
        lambda s: s.clear(),
    ],
)
def test_weights_of_another_network_are_refused(change):
    state = their_state(1, talks=False)
    change(state)
    with pytest.raises(InputDataError, match="Network3D or CommNet"):
        from_rl_medical(state)


def test_a_file_of_rl_medical_is_imported_whole(tmp_path):
    state = their_state(1, talks=False)
    items, storages = {}, {}
    for i, (name, value) in enumerate(state.items()):
        strides = [int(step) // 4 for step in value.strides]
        items[name] = tensor(storage(str(i), value.size, zipped=False), value.shape, strides)
        storages[str(i)] = value.tobytes()
    path = stream_file(tmp_path / "SingleAgent.pt", described(items), storages)
    imported, direct = import_rl_medical(path), from_rl_medical(state)
    assert imported.settings == direct.settings
    assert sum(value.size for value in imported.weights.values()) == 550_860
    for name, value in direct.weights.items():
        assert np.array_equal(imported.weights[name], value), name


# --- the world it saw ---------------------------------------------------------------------------


@pytest.fixture
def task() -> Landmark3D:
    rng = np.random.Generator(np.random.PCG64(3))
    voxels = rng.integers(0, 256, (20, 24, 22), np.uint8)
    volume = Volume(voxels, 1.0, (-5.0, 7.0, 2.0), np.eye(3))
    case = Case("a", volume, np.array([[6.0, 15.0, 11.0]]))
    cases = as_rl_medical_saw(build_cases_3d([case]))
    return Landmark3D(cases, Ladder((2.0, 1.0), (3.0, 1.0)), Views(5), nearest=True)


def test_agents_at_the_landmark_are_found_at_the_landmark(task):
    at = task.starts(np.random.Generator(np.random.PCG64(0)), 1, posed=False)
    task.move_to(at, task.targets(at).astype(np.float32))
    assert np.allclose(in_the_world(task, at), [[6.0, 15.0, 11.0]])


def test_the_window_lies_as_theirs_did(task):
    """Forward is up along y, voxels are skipped and not pooled, and the middle lags one voxel."""
    at = task.starts(np.random.Generator(np.random.PCG64(0)), 1, posed=False)
    onto_voxels(task, at)
    agent = np.rint(in_the_world(task, at)[0] - (-5.0, 7.0, 2.0)).astype(int)
    volume = np.random.Generator(np.random.PCG64(3)).integers(0, 256, (20, 24, 22), np.uint8)
    forward = volume[:, ::-1]
    x, y, z = agent * (1, -1, 1) + (0, 23, 0) - 1
    for level, stride in ((1, 1), (0, 2)):
        at["level"] = level
        around = [slice(i - 2 * stride, i + 2 * stride + 1, stride) for i in (z, y, x)]
        assert np.array_equal(task.observe(at)[0, 0], forward[tuple(around)]), stride
