"""The options of the commands that open the viewer or watch kernels, and what follows from them."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from taichi_nerf.apps.scene_options import options_of

if TYPE_CHECKING:
    from taichi_nerf.live_kernels import LiveKernels, News
    from taichi_nerf.viewer.viewer import Place

HOST = "127.0.0.1"


class OwnKernels(click.ParamType):
    """compositing=my_kernels.py"""

    name = "name=file"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Path]:
        if isinstance(value, tuple):
            return value
        name, _, file = value.partition("=")
        if not name.isidentifier() or not file:
            self.fail(f"expected a file of kernels/ and yours, such as compositing=my_kernels.py, got {value!r}", param, ctx)
        if not Path(file).is_file():
            self.fail(f"{file}: no such file", param, ctx)
        return name, Path(file)


SERVER = (
    click.option("--host", default=HOST, show_default=True, help="Where to listen; another address lets other machines in."),
    click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="The next free one is taken."),
    click.option("--token", metavar="TEXT|auto",
                 help="A secret part of the address, without which nobody comes in.  [default: none; auto for another --host]"),
)  # fmt: skip
RESOLUTION = (
    click.option("--resolution", type=click.IntRange(64, 1080), default=512, show_default=True,
                 help="Rows of finished pictures, at first; the page has a slider."),
)  # fmt: skip
KERNELS = (
    click.option("--kernel", "own_kernels", type=OwnKernels(), multiple=True, metavar="NAME=FILE.py",
                 help="Kernels of yours in place of those of kernels/NAME.py; may be repeated."),
    click.option("--watch-kernels", is_flag=True, help="Read kernels again whenever their files are edited."),
)  # fmt: skip
view_options = options_of(SERVER, RESOLUTION, KERNELS)
OF_THE_VIEWER = ("host", "port", "token", "resolution")


def place_of(options: dict[str, Any], out: Path) -> "Place":
    """Where the viewer listens, which is tried before anything is loaded or made; tells on stderr what that means."""
    from taichi_nerf.viewer.server import free_port, is_of_this_machine, new_token
    from taichi_nerf.viewer.viewer import Place

    host, token = options["host"], options["token"]
    inside = is_of_this_machine(host)
    if token == "auto" or (token is None and not inside):
        token = new_token()
    if token is not None and not (len(token) >= 8 and token.replace("-", "").replace("_", "").isalnum() and token.isascii()):
        raise click.BadParameter("expected auto, or eight or more letters, digits, - and _", param_hint="--token")
    free_port(host, options["port"])
    if not inside:
        click.echo(
            f"warning: --host {host}: whoever reaches this machine and has the address with its token can look, write files into "
            f"{out} and use its processor; nothing is encrypted",
            err=True,
        )
    return Place(out, host, options["port"], token, options["resolution"])


def live_kernels_of(options: dict[str, Any]) -> "LiveKernels | None":
    """The kernels that the options put in or watch, with news for the terminal; None if they do neither."""
    if not options["own_kernels"] and not options["watch_kernels"]:
        return None
    from taichi_nerf.live_kernels import LiveKernels

    return LiveKernels(options["watch_kernels"], dict(options["own_kernels"]), print_news)


def print_news(news: "News") -> None:
    click.echo(news.text if news.kind == "gradients" else f"kernel {news.kind}: {news.text}", err=news.kind == "failed")
