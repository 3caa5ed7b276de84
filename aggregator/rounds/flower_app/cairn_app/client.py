"""Hands Flower the installed site's ClientApp, where a stock SuperNode carries for a courier.

Couriers that hold their connection themselves run their own installed code, never an upload.
"""

import site_client.courier.carried

app = site_client.courier.carried.app
