"""Commands of Cairn as processes of their own, without half a second of imports for each.

One process imports the programs once and does nothing else. A command is a fork of it, with
the folder, the environment and the open files of whoever typed it: it can be killed, ends
with its own code, and knows nothing of the test. What is about starting itself (paths of
modules, entry points, services that go on) starts its programs in the ordinary way.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path

from common.lazy import LazyGroup

PROGRAMS = {
    "cairn-site": "site_client.cli",
    "cairn-aggregator": "aggregator.cli",
    "cairn-audit": "common.audit.cli",
}
_ROOT = Path(__file__).resolve().parent.parent
_MOST_BYTES = 1 << 20


def run(
    words: Sequence[str], cwd: Path, env: Mapping[str, str], timeout: float
) -> subprocess.CompletedProcess[str]:
    """What ``subprocess.run`` would return for one of ``PROGRAMS``, its output as text.

    Raises:
        subprocess.TimeoutExpired: it ran for longer, and was killed.
    """
    with (
        tempfile.TemporaryFile() as out,
        tempfile.TemporaryFile() as err,
        socket.socket(socket.AF_UNIX) as line,
    ):
        line.connect(_server())
        asked = json.dumps({"words": list(words), "cwd": str(cwd), "env": dict(env)})
        socket.send_fds(line, [asked.encode() + b"\n"], [out.fileno(), err.fileno()])
        answer = line.makefile("r")
        pid = int(answer.readline())
        line.settimeout(timeout)
        try:
            code = answer.readline()
        except TimeoutError:
            os.killpg(pid, signal.SIGKILL)
            raise subprocess.TimeoutExpired(words, timeout) from None
        said = []
        for file in (out, err):
            file.seek(0)
            said.append(file.read().decode("utf-8"))
        # Who was killed has not said how it ended.
        return subprocess.CompletedProcess(words, int(code or -signal.SIGKILL), *said)


_servers: dict[int, str] = {}


def _server() -> str:
    """The address of this process's own; started when it is first asked for."""
    if os.getpid() not in _servers:
        folder = tempfile.TemporaryDirectory(prefix="cairn-typed-")
        address = str(Path(folder.name) / "socket")
        paths = os.pathsep.join([str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.typed", address],
            cwd=_ROOT,
            env=os.environ | {"PYTHONPATH": paths},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        atexit.register(_end, process, folder)
        _servers[os.getpid()] = address
    return _servers[os.getpid()]


def _end(process: subprocess.Popen[bytes], folder: tempfile.TemporaryDirectory[str]) -> None:
    process.terminate()
    process.communicate()
    folder.cleanup()


def _serve(address: str) -> None:
    """Fork for everybody who calls; ends with its parent."""
    from importlib import import_module

    modules = {name: import_module(module) for name, module in PROGRAMS.items()}
    for module in modules.values():
        if isinstance(module.cli, LazyGroup):
            module.cli.load()
    programs = {name: module.main for name, module in modules.items()}
    parent = os.getppid()
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(address)
        door.listen(64)
        door.settimeout(1.0)
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while os.getppid() == parent:
            _reap()
            try:
                line, _ = door.accept()
            except TimeoutError:
                continue
            line.settimeout(None)
            if os.fork() == 0:
                door.close()
                _become(line, programs)
            line.close()


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            continue
    except ChildProcessError:
        return


def _become(line: socket.socket, programs: Mapping[str, object]) -> None:
    """Be the command that was asked for, say its code, and end."""
    data, files, _, _ = socket.recv_fds(line, _MOST_BYTES, 2)
    while not data.endswith(b"\n"):
        data += line.recv(_MOST_BYTES)
    os.setsid()
    line.sendall(f"{os.getpid()}\n".encode())
    asked = json.loads(data)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for number, file in enumerate((nothing, *files)):
        os.dup2(file, number)
        os.close(file)
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["env"])
    sys.argv = asked["words"]
    vars(sys.modules["__main__"])["__package__"] = None  # click asks how it was started
    code: object = 1
    try:
        programs[asked["words"][0]]()
    except SystemExit as ended:
        code = ended.code
    except Exception:  # noqa: BLE001 -- as an interpreter would end
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        line.sendall(f"{code if isinstance(code, int) else int(code is not None)}\n".encode())
        os._exit(0)


if __name__ == "__main__":
    _serve(sys.argv[1])
