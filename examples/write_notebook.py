"""Make notebook.ipynb from notebook.py, whose cells begin with `# %%`. The notebook has no outputs: run it to see them.

python examples/write_notebook.py
"""

import json
import re
from pathlib import Path

HERE = Path(__file__).parent


def cells_of(text: str) -> list[dict]:
    cells = []
    for head, body in re.findall(r"^# %%(.*)\n((?:(?!# %%).*\n)*)", text, re.MULTILINE):
        lines = body.strip("\n").split("\n")
        about = {"id": f"cell-{len(cells)}", "metadata": {}}
        if "[markdown]" in head:
            lines = [line.removeprefix("#").removeprefix(" ") for line in lines]
            cells.append({"cell_type": "markdown", **about, "source": "\n".join(lines).splitlines(keepends=True)})
        else:
            source = "\n".join(lines).splitlines(keepends=True)
            cells.append({"cell_type": "code", **about, "execution_count": None, "outputs": [], "source": source})
    return cells


def notebook_of(text: str) -> str:
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    found = {"cells": cells_of(text), "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(found, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    (HERE / "notebook.ipynb").write_text(notebook_of((HERE / "notebook.py").read_text(encoding="utf-8")), encoding="utf-8")
