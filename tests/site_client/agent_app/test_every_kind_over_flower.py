"""Every kind of task over real Flower: programs, TLS, doors and ledgers as users run them."""

from __future__ import annotations

import json
import re
import shutil

import pytest

from common.settings import KINDS
from tests.flower.conftest import real  # noqa: F401 - a fixture
from tests.programs import SITES
from tests.site_client.agent_app.test_every_kind_federates import WITHIN_BOUNDS, displaced
from tests.site_client.agent_app.test_one_vocabulary import LOOKED_FOR, small

pytestmark = [pytest.mark.flower, pytest.mark.slow, pytest.mark.timeout(900)]


def toml_of(value: object) -> str:
    """A plan's canonical values as TOML."""
    lines = [f"{k} = {json.dumps(v)}" for k, v in value.items() if not isinstance(v, dict)]
    for name, table in value.items():
        if isinstance(table, dict):
            lines.append(f"[{name}]")
            lines += [f"{key} = {json.dumps(each)}" for key, each in table.items()]
    return "\n".join(lines) + "\n"


EVERY = [*((kind, "dqn") for kind in KINDS), ("landmark-2d", "displacement")]


@pytest.mark.parametrize(("kind", "method"), EVERY)
def test_a_run_of_any_kind_completes_at_every_site(kind, method, real, request):  # noqa: F811
    source, _ = LOOKED_FOR[kind]
    for seed, site in enumerate(SITES, start=4):
        folder = real.root / "data" / site
        made = request.getfixturevalue(source)(folder=f"made-{site}", seed=seed)
        shutil.rmtree(folder)
        shutil.copytree(made, folder)
        # Every kind brings cases of the same names: nobody of them is held out.
        policy = real.root / site / "policy.toml"
        policy.write_text(re.sub(r"(?m)^share = 0\.2$", "share = 0.0", policy.read_text()))
        laid_out = real.root / site / "worker" / "data.toml"
        laid_out.write_text("pixel_mm = 0.5\n" if KINDS[kind].dim == 2 else "")
    make = displaced if method == "displacement" else small
    plan = make(kind, task={"roi": 17}, **WITHIN_BOUNDS)
    path = real.root / f"{kind}.toml"
    path.write_text(toml_of(json.loads(plan.canonical())))
    said = real.run(
        *("cairn-aggregator", "round", "start", str(path), "--dir", "federation"),
        *("--min-sites", "3", "--watch"),
    )
    assert re.search(r"run_finished verdict=COMPLETED", said), said
