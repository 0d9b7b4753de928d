"""The examples run, and show what they say."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
SHOWN = {"swap_a_kernel.py": [r"fog: tensor\(\[0\.1813, 0\.3221", r"surface: tensor\(\[0\., 0\., 1\., 0\.\]\)"]}


def test_every_example_is_checked():
    assert {file.name for file in EXAMPLES.glob("*.py")} == set(SHOWN)


@pytest.mark.parametrize("name", sorted(SHOWN))
def test_runs_and_shows_what_it_says(name):
    done = subprocess.run([sys.executable, EXAMPLES / name], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for pattern in SHOWN[name]:
        assert re.search(pattern, done.stdout), done.stdout


def test_swapping_a_kernel_takes_less_than_30_lines():
    assert len((EXAMPLES / "swap_a_kernel.py").read_text().splitlines()) < 30
