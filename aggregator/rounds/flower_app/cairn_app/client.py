"""A ClientApp that does nothing: Cairn's couriers run their own installed code, never an upload."""

import flwr.clientapp

app = flwr.clientapp.ClientApp()
