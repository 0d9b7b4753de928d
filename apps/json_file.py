"""The option `--json FILE`; `training.json_file` writes what it names."""

from pathlib import Path
from typing import Any

import click


def json_option(what: str) -> Any:
    return click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help=what)
