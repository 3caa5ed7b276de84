"""A key that cannot be written says why, and what to do where that is known."""

import errno
import os

import pytest

from common.crypto import files
from common.errors import InputDataError


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "Make room, then type the same again"),
        (errno.EDQUOT, "Make room, then type the same again"),
        (errno.EIO, ""),
    ],
)
def test_only_a_full_disk_asks_for_room(tmp_path, monkeypatch, number, advice):
    def fails(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files, "_write_all", fails)
    with pytest.raises(InputDataError) as caught:
        files.write_secret(tmp_path / "some.key", b"secret")
    assert caught.value.advice == advice
    assert caught.value.got == os.strerror(number)
    assert list(tmp_path.iterdir()) == []
