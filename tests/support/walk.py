"""Walk through README and then the quick start as a newcomer: their own commands, in their order, in an empty folder.

    python tests/support/walk.py ENVIRONMENT/bin [FOLDER]

The commands are those of the pages' `sh` blocks, so the pages cannot drift from what works. Budgets are cut (`SHORTER`), and
what has installed the program already is passed over. Where pycolmap is not installed, `photos` has to say so in one line, and a
scene of our own making takes the place of what it would have made. Budgets are
steps: so many on any machine. `make wheel` walks with the wheel, in a fresh environment.
"""

import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("README.md", "docs/quick_start.md")
SHORTER = (
    (r"^taichi-nerf demo\b(.*)$", r"taichi-nerf demo\1 --steps 150"),
    (r"^(taichi-nerf train .*--resume .*)--time-budget \d+", r"\1--steps 140"),
    (r"^(taichi-nerf train .*)--time-budget \d+", r"\1--steps 120"),
    (r"^(taichi-nerf render (?!.*--n-frames).*)$", r"\1 --n-frames 3"),
    (r"^(taichi-nerf render .*--n-frames) \d+", r"\1 3 --width 96 --height 96"),
    (r"^(taichi-nerf export .*)$", r"\1 --resolution 64"),
)


def commands_of(page: str) -> list[str]:
    """The lines of a page's `sh` blocks, without what is said about them."""
    text = (ROOT / page).read_text(encoding="utf-8")
    lines = "\n".join(re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)).splitlines()
    return [line.partition("#")[0].strip() for line in lines if line.partition("#")[0].strip()]


def shorter(command: str) -> str:
    for pattern, instead in SHORTER:
        command = re.sub(pattern, instead, command)
    return command


def main(bin_folder: Path, folder: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment["PATH"] = f"{bin_folder.resolve()}{os.pathsep}{environment['PATH']}"

    def run(command: str) -> tuple[int, str]:
        began = time.monotonic()
        done = subprocess.run(
            shlex.split(command), cwd=place, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        print(f"{time.monotonic() - began:6.1f} s  {command}", flush=True)
        return done.returncode, done.stdout

    place, went = folder, set()
    for page in PAGES:
        print(page, flush=True)
        for command in commands_of(page):
            words = shlex.split(command)
            if words[0] in ("pip", "make") or command in went:
                continue  # whoever walks has installed it, and need not do again what README had them do
            went.add(command)
            if words[:2] == ["taichi-nerf", "photos"]:
                code, said = run(command)
                if code != 1 or len(said.splitlines()) != 1 or "error: " not in said:
                    sys.exit(f"expected one line that tells what is missing, got {code}: {said}")
                command = f"taichi-nerf scene make objects --n-views 12 --size 48 --out {words[-1]}"
            elif words[0] != "taichi-nerf":
                sys.exit(f"{page}: {command}: only taichi-nerf's commands and pip's are for newcomers")
            code, said = run(shorter(command))
            if code:
                sys.exit(f"{page}: {command}\nended with {code}:\n{said}")
            out = words[words.index("--out") + 1] if "--out" in words else None
            if out and "--dry-run" not in words and not (place / out).exists():
                sys.exit(f"{page}: {command}\nmade no {out}")


if __name__ == "__main__":
    if len(sys.argv) == 3:
        main(Path(sys.argv[1]), Path(sys.argv[2]))
    else:
        with tempfile.TemporaryDirectory() as empty:
            main(Path(sys.argv[1]), Path(empty))
