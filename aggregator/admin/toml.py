"""Settings, invites and credentials as TOML; the one place that needs what writes it."""

from __future__ import annotations

from collections.abc import Mapping


def as_toml(values: Mapping[str, object], *, multiline: bool = False) -> bytes:
    """Write a TOML document.

    Args:
        values: without None.
        multiline: texts of several lines, e.g. certificates, keep their lines.
    """
    import tomli_w

    return tomli_w.dumps(dict(values), multiline_strings=multiline).encode()
