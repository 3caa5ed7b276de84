"""A federation to play schedules on, made once a file, in a memory where a sync costs nothing."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.simulation.faults import Fault
from tests.simulation.world import Template, World


@pytest.fixture(scope="module")
def memory() -> Iterator[Path]:
    """A folder where a sync costs nothing: what a sync keeps is simulated."""
    place = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=place if place.is_dir() else None) as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def template(memory) -> Template:
    return Template.make(memory, sites=3, rounds=2)


@pytest.fixture
def root(memory) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)


@pytest.fixture(autouse=True)
def silence() -> Iterator[None]:
    """Refusals by the thousand are what is tested here; nobody reads their lines."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def played(template: Template, root: Path, faults: Sequence[Fault], seed: int = 0) -> World:
    world = World(template, root, faults, seed)
    world.run()
    return world
