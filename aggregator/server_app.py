"""The Flower ServerApp: conducts one run, or, in a relay's folder, does the relay's errands.

Started by Flower for a run whose only configuration is the run's name and turn, none of them
for a relay; the folder comes from the environment of ``cairn-aggregator up`` and ``relay up``.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from aggregator.admin.folder import FederationFolder
from aggregator.relays.errands import serve
from aggregator.relays.folder import RelayFolder
from aggregator.rounds.server import FOLDER_VARIABLE, RUN_KEY, TURN_KEY, GridTransport, conduct
from common.errors import InternalError

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Conduct the run that the configuration names, or serve the aggregator as a relay.

    Raises:
        InternalError: not started through ``cairn-aggregator``.
        RefusedError: it is another run's turn, or another process does this work.
    """
    folder = os.environ.get(FOLDER_VARIABLE)
    if not folder:
        raise InternalError(
            "the ServerApp does not know its federation",
            field=FOLDER_VARIABLE,
            expected="set by `cairn-aggregator up`",
        )
    relay = RelayFolder(Path(folder))
    if relay.is_one:
        serve(relay, partial(GridTransport, grid))
        return
    config = context.run_config
    conduct(grid, FederationFolder(relay.root), str(config[RUN_KEY]), int(str(config[TURN_KEY])))
