"""A real federation on loopback: Flower's programs, TLS, node authentication, processes apart."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.programs import SITES, Federation

APPROVED = {"approval": '"bounded"'}


@pytest.fixture(scope="session")
def real_class() -> type[Federation]:
    """For tests that need a federation of another shape."""
    return Federation


@pytest.fixture(scope="session")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    """Three sites, each a worker and a courier, and an aggregator; running.

    Their staff have confirmed each other. What keeps to their policies is served without
    a person: ``test_default_policy.py`` has those who decide.
    """
    federation = Federation(tmp_path_factory.mktemp("real"))
    try:
        federation.init()
        for site in SITES:
            federation.join_by_mail(site)
            federation.admit(site)
        federation.acquaint(*SITES)
        for site in SITES:
            federation.allow(site, **APPROVED)
        federation.start_aggregator()
        for site in SITES:
            federation.start_site(site)
        for site in SITES:
            federation.wait_for(f"{site}-courier", "online")
        yield federation
    finally:
        federation.stop()


@pytest.fixture
def stranger(real: Federation) -> Iterator[Path]:
    """A joined site folder that nobody has admitted."""
    name = f"stranger-{time.monotonic_ns() % 10**9}"
    real.join_by_mail(name)
    yield real.root / name
    shutil.rmtree(real.root / name)
