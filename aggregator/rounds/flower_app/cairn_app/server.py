"""Hands Flower the installed aggregator's ServerApp."""

import aggregator.rounds.server

app = aggregator.rounds.server.app
