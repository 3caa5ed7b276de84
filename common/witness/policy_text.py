"""The lines of a policy file: logs, witnesses, groups and the quorum. No key is read here.

The courier reads addresses from it and has no business with keys; ``policy`` reads the
keys and judges. What is not exactly a line of the format is an error, never a comment.

Source: C2SP tlog-policy.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from common.errors import InputDataError

MAX_POLICY_BYTES = 256 * 1024
MAX_ENTRIES = 32
_NONE = "none"
_URL = re.compile(
    r"(https?)://([A-Za-z0-9.-]{1,253}|\[[0-9a-fA-F:]{2,39}\])(:[0-9]{1,5})?(/[!\"$->@-~]{0,512})?"
)
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})


@dataclass(frozen=True)
class LogLine:
    """``log <vkey> [<url>]``."""

    vkey: str
    url: str


@dataclass(frozen=True)
class WitnessLine:
    """``witness <name> <vkey> [<url>]``.

    Attributes:
        name: by which groups and people refer to it.
        vkey: its verifier key; the key's own name stands in it.
        url: where it answers; empty when nobody here asks it.
    """

    name: str
    vkey: str
    url: str


@dataclass(frozen=True)
class Group:
    """``group <name> any|all|<k> <name>...``.

    Attributes:
        least: how many of the members must have cosigned.
    """

    name: str
    least: int
    members: tuple[str, ...]


@dataclass(frozen=True)
class PolicyText:
    """A whole policy file, well-formed.

    Attributes:
        groups: by name, each after those that it refers to.
        quorum: name of a witness or a group.
    """

    logs: tuple[LogLine, ...]
    witnesses: tuple[WitnessLine, ...]
    groups: dict[str, Group]
    quorum: str


def read_text(path: Path) -> str:
    """Return a policy file's text.

    Raises:
        InputDataError: it cannot be read, is too large, or holds other characters.
    """
    try:
        if not path.is_file():
            raise _malformed(str(path), "a file", "none")
        with path.open("rb") as stream:
            data = stream.read(MAX_POLICY_BYTES + 1)
    except OSError as error:
        raise _malformed(str(path), "a readable file", error.strerror or "an error") from error
    if len(data) > MAX_POLICY_BYTES:
        raise _malformed(str(path), f"at most {MAX_POLICY_BYTES} bytes", "more")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _malformed(str(path), "UTF-8", "other bytes") from error


def parse_text(text: str) -> PolicyText:
    """Read the lines of a policy file.

    Raises:
        InputDataError: names the line that is wrong.
    """
    logs: list[LogLine] = []
    witnesses: list[WitnessLine] = []
    groups: dict[str, Group] = {}
    quorums: list[str] = []
    free: dict[str, bool] = {}  # every name, and whether no group has it yet
    for place, words in _lines(text):
        match words:
            case ["log", vkey, *url] if len(url) <= 1:
                logs.append(LogLine(vkey, url[0] if url else ""))  # nobody here asks a log
            case ["witness", name, vkey, *url] if len(url) <= 1:
                _declare(name, free, place)
                for address in url:
                    check_url(address, place)
                witnesses.append(WitnessLine(name, vkey, url[0] if url else ""))
            case ["group", name, least, *members] if members:
                for member in members:
                    if not free.get(member, False):
                        raise _malformed(place, "names defined above, each in one group", member)
                    free[member] = False
                groups[name] = Group(name, _threshold(least, members, place), tuple(members))
                _declare(name, free, place)
            case ["quorum", name]:
                quorums.append(name)
                if name not in free and name != _NONE:
                    raise _malformed(place, "a name defined above", name)
            case _:
                raise _malformed(place, "log, witness, group or quorum, as the format says", "more")
        if max(len(logs), len(witnesses), len(groups)) > MAX_ENTRIES:
            raise _malformed(place, f"at most {MAX_ENTRIES} of a kind", "more")
    if len(quorums) != 1:
        raise _malformed("quorum", "exactly one such line", f"{len(quorums)}")
    if quorums[0] == _NONE:
        raise InputDataError(
            "this policy asks for no witness",
            field="quorum",
            expected="a witness or a group",
            got="none",
            advice="Leave the policy away altogether if nobody shall witness",
        )
    return PolicyText(tuple(logs), tuple(witnesses), groups, quorums[0])


def check_url(url: str, field: str) -> None:
    """Return only for an address that a witness may be asked at: TLS, or this very machine.

    Raises:
        InputDataError: another text.
    """
    match = _URL.fullmatch(url)
    if match is None or (match[1] == "http" and match[2] not in _LOOPBACK):
        raise _malformed(field, "https://host[:port][/path]; http only on this machine", url)


def _lines(text: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the words of every line that says something, and where it stands."""
    for number, line in enumerate(text.split("\n"), start=1):
        if any((letter < " " and letter != "\t") or letter == "\x7f" for letter in line):
            raise _malformed(f"line {number}", "no control characters but tabs", "one")
        words = line.replace("\t", " ").split(" ")
        words = [word for word in words if word]
        if words and not words[0].startswith("#"):
            yield f"line {number}", words


def _declare(name: str, free: dict[str, bool], place: str) -> None:
    if name in free or name == _NONE:
        raise _malformed(place, "a name that is not used yet", name)
    free[name] = True


def _threshold(word: str, members: Sequence[str], place: str) -> int:
    if word in ("any", "all"):
        return 1 if word == "any" else len(members)
    if not (word.isascii() and word.isdecimal() and len(word) <= 3 and word[0] != "0"):
        raise _malformed(place, "any, all or a number", word)
    if int(word) > len(members):
        raise _malformed(place, f"at most {len(members)}, as many as members", word)
    return int(word)


def _malformed(field: str, expected: str, got: str) -> InputDataError:
    return InputDataError(
        "the witness policy is not valid",
        field=field,
        expected=expected,
        got=got[:80],
        advice="The format: log, witness, group and quorum lines, see deploy/README.md",
    )
