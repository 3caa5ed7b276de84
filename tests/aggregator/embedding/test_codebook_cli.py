"""The ``codebook`` commands, from keys to labels, and their refusals."""

import json
import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest

from aggregator.embedding.cli import codebook, parse_groups
from common.cli import run
from common.errors import ExitCode, InputDataError
from common.keys.codebook import Codebook


@pytest.fixture
def call(capsys):
    def _call(*words):
        with pytest.raises(SystemExit) as end:
            run(codebook, [str(word) for word in words])
        told = capsys.readouterr()
        return end.value.code, told.out, told.err

    return _call


@pytest.fixture
def keys(tissues, tmp_path):
    path = tmp_path / "keys.safetensors"
    path.write_bytes(tissues[0].to_bytes())
    return path


def test_build_label_and_show_lead_from_keys_to_names(call, keys, tmp_path):
    built, labelled, page = (tmp_path / name for name in ("c.json", "l.json", "p.html"))
    shared = ("--neighbours", "12", "--seed", "4")
    code, out, _ = call(
        "build", keys, "-o", built, "--clusters", "kmeans:3", "--page", page, "--json", *shared
    )
    assert code == ExitCode.OK
    told = json.loads(out)
    assert told["digest"] == Codebook.from_bytes(built.read_bytes()).digest
    assert [row["keys"] for row in told["clusters"]] == [100, 80, 60]
    assert told["made"]["clusters_by"] == "kmeans:3"
    assert sum(row["share"] for row in told["clusters"]) == pytest.approx(1)
    assert page.read_text().startswith("<!doctype html>")

    groups = ("--group", "tumour=0,2", "--group", "other=rest")
    assert call("label", built, *groups, "-o", labelled)[0] == ExitCode.OK
    book = Codebook.from_bytes(labelled.read_bytes())
    assert book.group_names == ("other", "tumour")
    assert book.group_of == (1, 0, 1)

    code, out, _ = call("show", labelled, "--json")
    assert [row["group"] for row in json.loads(out)["clusters"]] == ["tumour", "other", "tumour"]
    code, out, _ = call("show", labelled)
    assert code == ExitCode.OK
    assert "tumour" in out
    assert call("page", labelled, keys, "-o", page, *shared)[0] == ExitCode.OK
    assert "NOT YET LABELLED" not in page.read_text()


def test_building_twice_gives_the_same_bytes(call, keys, tmp_path):
    paths = [tmp_path / "one.json", tmp_path / "two.json"]
    for path in paths:
        words = ("--clusters", "hdbscan:20", "--neighbours", "12")
        assert call("build", keys, "-o", path, *words)[0] == ExitCode.OK
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_keys_that_come_later_give_the_same_bytes_and_points_of_every_key(call, keys, tmp_path):
    there, later = tmp_path / "there.json", tmp_path / "later.json"
    points = tmp_path / "points.npy"
    words = ("--clusters", "kmeans:3", "--neighbours", "12")
    assert call("build", keys, "-o", there, *words)[0] == ExitCode.OK
    coming = tmp_path / "coming.safetensors"
    shutil.copy(keys, tmp_path / "part")
    renamed = threading.Timer(0.3, (tmp_path / "part").rename, (coming,))
    renamed.start()
    told = call("build", coming, "-o", later, *words, "--wait", "60", "--points", points)
    renamed.join()
    assert told[0] == ExitCode.OK
    assert later.read_bytes() == there.read_bytes()
    laid = np.load(points, allow_pickle=False)
    assert laid.dtype == np.float32
    assert laid.shape == (Codebook.from_bytes(there.read_bytes()).keys.size, 2)


def test_keys_that_never_come_are_missed_in_the_end(call, tmp_path):
    out = tmp_path / "out.json"
    words = ("--neighbours", "12", "--wait", "0.2")
    code, _, said = call("build", tmp_path / "never", "-o", out, *words)
    assert code == ExitCode.BAD_INPUT
    assert "FileNotFoundError" in said
    assert not out.exists()


def test_what_cannot_be_used_is_refused_with_a_code(call, keys, tmp_path):
    out = tmp_path / "out.json"
    assert call("build", tmp_path / "none", "-o", out)[0] == ExitCode.BAD_INPUT
    assert call("build", keys, "-o", out, "--clusters", "magic")[0] == ExitCode.BAD_INPUT
    assert call("build", keys, "-o", out, "--neighbours", "999")[0] == ExitCode.BAD_INPUT
    assert call("show", keys)[0] == ExitCode.BAD_INPUT
    assert call("show", tmp_path / "none")[0] == ExitCode.BAD_INPUT
    assert call("build", keys)[0] == ExitCode.USAGE
    assert not out.exists()


def test_groups_are_spelled_as_names_and_numbers():
    assert parse_groups(("a=0, 2", "b=1"), 3) == {0: "a", 1: "b", 2: "a"}
    assert parse_groups(("a=rest", "b = 1"), 3) == {0: "a", 1: "b", 2: "a"}
    assert parse_groups(("a=0",), 3) == {0: "a"}  # the codebook itself asks for the others


@pytest.mark.parametrize(
    "groups",
    [("a",), ("=1",), ("a=",), ("a=3",), ("a=-1",), ("a=x",), ("a=1", "b=1"), ("a=rest", "b=rest")],
)
def test_unclear_groups_are_refused(groups):
    with pytest.raises(InputDataError, match="unclear groups"):
        parse_groups(groups, 3)


def test_help_comes_without_the_heavy_libraries():
    code = (
        "import sys; from aggregator.embedding.cli import codebook;"
        "codebook.main(['build', '--help'], standalone_mode=False);"
        "heavy = {'umap', 'sklearn', 'numba', 'matplotlib', 'numpy'} & set(sys.modules);"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, encoding="utf-8", timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "--clusters" in done.stdout
