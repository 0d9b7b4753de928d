"""What README and docs/ say is so: their code runs, their commands parse, their links lead somewhere.

That README's and the quick start's commands work one after another is walked through by `make wheel` (tests/support/walk.py).
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
import small_run
import walk

from taichi_nerf.apps.main import main

ROOT = Path(__file__).resolve().parents[1]
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + DOCS
CODE = [(page, block) for page in PAGES for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)]
WRITTEN = ROOT / "docs/commands.md"  # by a script, from what is tested here


def test_what_pip_is_to_install_is_quoted_for_every_systems_shell():
    """To cmd.exe single quotes are part of a name, and what follows the > in them is a file to write to."""
    sources = [file for room in ("taichi_nerf", "apps") for file in (ROOT / room).rglob("*.py")]
    assert [str(file) for file in PAGES + sources if "pip install '" in file.read_text(encoding="utf-8")] == []


@pytest.fixture(scope="module")
def after_the_demo(tmp_path_factory):
    """An empty folder but for demo/scene and demo/run."""
    from taichi_nerf import start

    start("cpu")
    place = tmp_path_factory.mktemp("newcomer")
    config, scene = small_run.configured(small_run.make(place / "demo/scene"), steps=30)
    small_run.trained(place / "demo/run", config, scene)
    shutil.copy(ROOT / "kernels/compositing.py", place / "my_kernels.py")
    return place


@pytest.mark.parametrize(("page", "code"), CODE, ids=[f"{page.stem}-{i}" for i, (page, _) in enumerate(CODE)])
def test_the_python_of_a_page_runs(page, code, after_the_demo):
    file = after_the_demo / "page.py"  # Taichi reads the source of kernels
    file.write_text(code.replace('"auto"', '"cpu"'))
    done = subprocess.run([sys.executable, file], capture_output=True, text=True, cwd=after_the_demo, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    assert done.stdout or (after_the_demo / "shells.png").exists()


def test_readme_hacks_a_kernel_in_15_lines_that_one_sees(after_the_demo):
    import imageio.v3 as imageio
    import numpy as np

    (code,) = (code for _, code in CODE if "def shells" in code)
    kernel = code[code.index("@ti.kernel") :]
    assert len([line for line in kernel.splitlines() if line.strip()]) <= 15
    file = after_the_demo / "hack.py"
    for name, text in (("shells.png", code), ("plain.png", code.replace("(t0[i] % 0.2 < 0.12)", "1.0"))):
        file.write_text(text.replace('"auto"', '"cpu"').replace("shells.png", name))
        subprocess.run([sys.executable, file], check=True, cwd=after_the_demo, capture_output=True)
    shells, plain = (imageio.imread(after_the_demo / name).astype(float) for name in ("shells.png", "plain.png"))
    assert np.abs(shells - plain).mean() > 3


def command_lines(page):
    """Every `taichi-nerf …` of a page's indented and fenced blocks, without what is said behind two spaces or #."""
    for line in page.read_text().splitlines():
        found = re.match(r"(?:    (?:\$ )?)?(taichi-nerf .+)", line)
        if found and "`" not in line:
            yield re.split(r"  +|  #", found[1])[0].strip()


COMMANDS = sorted({(page.name, line) for page in PAGES if page != WRITTEN for line in command_lines(page)})


@pytest.mark.parametrize(("page", "line"), COMMANDS, ids=lambda value: value)
def test_a_command_of_a_page_is_one_that_the_program_takes(page, line, after_the_demo, monkeypatch):
    monkeypatch.chdir(after_the_demo)
    command, words = main, shlex.split(line)[1:]
    context = click.Context(main, info_name="taichi-nerf", **main.context_settings)
    while isinstance(command, click.Group) and words:
        command, words = command.commands[words[0]], words[1:]
    command.make_context(command.name, words, parent=context)


def test_the_check_of_commands_sees_a_wrong_one(after_the_demo, monkeypatch):
    wrong = "taichi-nerf train x --out y --time-bugdet 3"
    with pytest.raises(click.UsageError):
        test_a_command_of_a_page_is_one_that_the_program_takes("", wrong, after_the_demo, monkeypatch)
    assert len(COMMANDS) > 30


def test_every_command_is_on_the_page_of_commands():
    # In a process of its own: click keeps a command's help option from whoever asked for it first, such as another test.
    code = f"import runpy; print(runpy.run_path({str(WRITTEN.with_name('write_commands.py'))!r})['page'](), end='')"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, encoding="utf-8", check=True).stdout
    assert WRITTEN.read_text(encoding="utf-8") == told, "run: python docs/write_commands.py"


def test_newcomers_walk_through_commands_of_the_pages():
    for page in walk.PAGES:
        assert any(line.startswith("taichi-nerf train") for line in walk.commands_of(page)), page
    assert walk.shorter("taichi-nerf train s --out r --time-budget 60") == "taichi-nerf train s --out r --steps 120"
    for page in walk.PAGES:  # nothing of minutes is left
        lines = [walk.shorter(line) for line in walk.commands_of(page)]
        assert not [line for line in lines if re.search(r"--(time-budget|seconds)", line)], page
        budgets = [int(n) for line in lines for n in re.findall(r"--steps (\d+)", line)]
        assert budgets
        assert max(budgets) <= 150


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page):
    text = page.read_text()
    for target, anchor in re.findall(r"\]\(([^)#]*)(?:#([^)]*))?\)", text):
        if "://" in target:
            continue
        file = page.parent / target if target else page
        assert file.exists(), f"{page.name}: {target}"
        if anchor:
            heads = re.findall(r"^#+ (.*)", file.read_text(), re.MULTILINE)
            assert anchor in [re.sub(r"[^\w\- ]", "", head).strip().lower().replace(" ", "-") for head in heads], anchor


def test_the_index_leads_to_every_page():
    index = (ROOT / "docs/README.md").read_text()
    for page in DOCS:
        assert page.name == "README.md" or f"]({page.name})" in index, page.name


def test_no_page_was_left_with_a_gap_to_fill():
    for page in PAGES:
        assert not re.search(r"@[A-Z]{3,}@|TODO|FIXME", page.read_text()), page.name


def test_every_command_is_told_of():
    text = (ROOT / "README.md").read_text()
    for name in main.commands:
        assert f"taichi-nerf {name}" in text, name
