"""What README and docs/ say is so: their code runs, their links lead somewhere."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + sorted((ROOT / "docs").glob("*.md"))
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_the_python_in_readme_runs(number):
    code = BLOCKS[number]
    if "start(" not in code:  # it goes on where the block before it began
        code = "import taichi_nerf\ntaichi_nerf.start('cpu')\n" + code
    done = subprocess.run([sys.executable, "-c", code.replace('"auto"', '"cpu"')], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_no_page_was_left_with_a_gap_to_fill():
    for page in PAGES:
        assert not re.search(r"@[A-Z]{3,}@|TODO|FIXME", page.read_text()), page.name


def test_every_command_is_told_of():
    from taichi_nerf.apps.main import main

    text = (ROOT / "README.md").read_text()
    for name in main.commands:
        assert f"taichi-nerf {name}" in text, name
