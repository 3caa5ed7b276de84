"""The figures of the pixel road are copied into their document, never typed."""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "deploy" / "results"


def check(folder):
    words = [sys.executable, "-m", "tests.benchmarks.pixel_road", "check", "-o", str(folder)]
    return subprocess.run(words, cwd=ROOT, capture_output=True, encoding="utf-8", check=False)


def test_the_document_is_what_its_figures_say_and_one_changed_digit_is_seen(tmp_path):
    done = check(RESULTS)
    assert done.returncode == 0, done.stderr
    for name in ("pixels.json", "PIXELS.md"):
        shutil.copy(RESULTS / name, tmp_path / name)
    text = (tmp_path / "PIXELS.md").read_text(encoding="utf-8")
    assert "0.9" in text
    (tmp_path / "PIXELS.md").write_text(text.replace("0.9", "0.8", 1), encoding="utf-8")
    done = check(tmp_path)
    assert done.returncode == 1
    assert "not what pixels.json says" in done.stderr
