"""One hospital's side: the worker (images, no network) and the courier (network, no images).

The only role with torch and SimpleITK. Everything that leaves goes through
``site_client.egress``.
"""
