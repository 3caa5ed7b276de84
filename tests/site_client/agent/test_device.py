"""One place decides where networks compute; the processor unless somebody says otherwise."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from common.errors import InputDataError
from site_client.agent.device import VARIABLE, pick_device, worker_device
from site_client.agent_app.config import parse_config

PACKAGE = Path(__file__).resolve().parents[3] / "site_client"


def test_the_processor_is_the_default(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    assert worker_device() == torch.device("cpu")
    assert parse_config({}).run.device == "cpu"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card")
def test_without_a_card_auto_is_the_processor_and_cuda_a_clear_error(monkeypatch):
    assert pick_device("auto") == torch.device("cpu")
    monkeypatch.setenv(VARIABLE, "cuda")
    with pytest.raises(InputDataError, match="no graphics card") as caught:
        worker_device()
    assert caught.value.exit_code == 6


def test_a_device_that_is_none_is_refused_by_name():
    with pytest.raises(InputDataError, match="cpu or cuda or auto"):
        pick_device("tpu")


def test_no_other_room_names_a_device():
    """Whoever makes a tensor takes the device from what is there, and decides nothing."""
    named = re.compile(r"""["'](cuda|cpu)["']|\.cuda\(""")
    rooms = {
        str(path.relative_to(PACKAGE)): path.read_text(encoding="utf-8")
        for path in PACKAGE.rglob("*.py")
    }
    found = {name for name, text in rooms.items() if named.search(text)}
    # The first draws them on the processor; the second says which names a setting takes.
    assert found == {
        "agent/device.py",
        "agent/networks/__init__.py",
        "agent_app/config.py",
    }


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no graphics card that torch can use")
def test_a_card_gives_the_same_values_to_rounding():
    from common.settings import NetworkSettings, Space
    from site_client.agent.networks import build_network

    space = Space((3, 13, 13), 6, 2, ("A", "B"), (1.0, 1.0))
    here, there = (
        build_network(
            NetworkSettings(width=4), space, torch.Generator().manual_seed(0), device=device
        )
        for device in (torch.device("cpu"), pick_device("cuda"))
    )
    seen, level, head = torch.rand(5, 3, 13, 13), torch.arange(5) % 2, torch.arange(5) % 2
    far = there(*(each.to("cuda") for each in (seen, level, head))).cpu()
    torch.testing.assert_close(here(seen, level, head), far, rtol=1e-4, atol=1e-5)
