"""Telling systemd how it goes, where systemd asked to be told (``Type=notify``).

One datagram to the socket that systemd named in the environment; nothing happens
where none is named. Source: sd_notify(3).
"""

from __future__ import annotations

import os
import socket

VARIABLE = "NOTIFY_SOCKET"


def notify(*, ready: bool = False, stopping: bool = False, status: str = "") -> bool:
    """Say that the service is ready, that it stops, or what it does now.

    Args:
        ready: start-up is over.
        stopping: shutdown has begun.
        status: one line for ``systemctl status``; never a path of an image or a name.

    Returns:
        Whether somebody was told.
    """
    address = os.environ.get(VARIABLE, "")
    if not address.startswith(("/", "@")):
        return False
    lines = [
        *(["READY=1"] if ready else []),
        *(["STOPPING=1"] if stopping else []),
        *([f"STATUS={' '.join(status.split())}"] if status else []),
    ]
    if not lines:
        return False
    # An abstract socket's name begins with a zero byte, which systemd writes as "@".
    place = "\0" + address[1:] if address.startswith("@") else address
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
        try:
            out.sendto("\n".join(lines).encode("utf-8"), place)
        except OSError:
            # The supervisor is gone or full; the service goes on without it.
            return False
    return True
