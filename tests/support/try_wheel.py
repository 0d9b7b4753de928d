"""Build the wheel, install it in a fresh environment outside the source tree, and use it there as a user would: the commands of
README and of the quick start, one after another (`walk.py`), in an empty folder.

Run by `make wheel`; not a pytest file, because it installs a second environment and takes minutes.
"""

import os
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

import walk

ROOT = Path(__file__).resolve().parents[2]

SMOKE = """
import pathlib, sys, torch, taichi_nerf
assert not pathlib.Path(taichi_nerf.__file__).is_relative_to({root!r}), taichi_nerf.__file__
taichi_nerf.start("cpu")
t = torch.linspace(0, 2, 9)
spans = torch.tensor([[0, 8]], dtype=torch.int32)
density = torch.full((8,), 1.5, requires_grad=True)
rendered = taichi_nerf.ops.compositing.composite_rays(density, torch.ones(8, 3), t[:-1], t[1:], spans)
rendered.opacity.sum().backward()
assert abs(rendered.opacity.item() - 0.950213) < 1e-5 and abs(density.grad.sum().item() - 2 * 0.049787) < 1e-5
for name in ("kernels", "apps", "benchmarks"):
    assert getattr(__import__("taichi_nerf." + name), name).__doc__
print("the installed wheel computes")
"""


def run(*command: object, cwd: Path) -> str:
    words = [str(word) for word in command]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(words, cwd=cwd, env=environment, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"failed ({done.returncode}): {' '.join(words)}\n{done.stdout}")
    return done.stdout


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        outside = Path(folder)
        run(sys.executable, "-m", "build", "--wheel", "--outdir", outside, ROOT, cwd=outside)
        (wheel,) = outside.glob("*.whl")
        top = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
        top = {name for name in top if not name.endswith(".dist-info")}
        assert top == {"taichi_nerf"}, f"the wheel's top-level names are {sorted(top)}"
        venv.create(outside / "env", with_pip=True)
        python = outside / "env/bin/python"
        run(python, "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt", wheel, cwd=outside)
        print(run(python, "-c", SMOKE.format(root=str(ROOT)), cwd=outside), end="")
        for command in (
            ["--version"],
            ["--help"],
            ["backends"],
            ["benchmark", "kernels", "--only", "compositing", "--n", "1000"],
        ):
            print(run(outside / "env/bin/taichi-nerf", *command, cwd=outside), end="")
        (outside / "walk").mkdir()
        walk.main(outside / "env/bin", outside / "walk")


if __name__ == "__main__":
    main()
