"""The glossary stays short, in order, and says nothing of what is not there."""

from __future__ import annotations

import re
from pathlib import Path

from common.audit.glossary import WORDS as ON_THE_AUDITORS_PAGE

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "deploy" / "GLOSSARY.md").read_text(encoding="utf-8")
WORDS = re.findall(r"^\| ([a-z -]+) \| (.+) \|$", TEXT, re.M)[1:]


def test_the_glossary_has_at_most_sixty_words_in_order_each_once():
    names = [name for name, _ in WORDS]
    assert 40 <= len(names) <= 60
    assert names == sorted(set(names))


def test_a_word_takes_one_line_and_no_more():
    rows = [line for line in TEXT.splitlines() if line.startswith("| ")]
    assert len(rows) == len(WORDS) + 1
    assert max(len(meaning) for _, meaning in WORDS) <= 110


def test_every_word_is_one_that_the_code_uses():
    code = "\n".join(
        path.read_text(encoding="utf-8").lower()
        for package in ("common", "site_client", "aggregator")
        for path in (ROOT / package).rglob("*.py")
    )
    assert [name for name, _ in WORDS if name not in code] == []


def test_what_stands_in_code_type_exists():
    for name in re.findall(r"`([\w/.]+)`", TEXT):
        assert (ROOT / name).exists() or name == "policy.toml", name


def test_an_auditors_page_explains_words_as_the_glossary_does():
    meanings = dict(WORDS)
    assert {name: meanings[name] for name in ON_THE_AUDITORS_PAGE} == ON_THE_AUDITORS_PAGE
