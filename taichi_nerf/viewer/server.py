"""viser's web server behind a door of ours: who may come in, and what the page may reach.

- It listens on 127.0.0.1 unless told otherwise. There, any account on this machine can come in; a token keeps them out.
- With a token, page and websocket are at http://HOST:PORT/TOKEN/ and nowhere else: everything else is 404.
- A page of another origin cannot open the websocket (browsers say where a page is from), and without a token the name by which
  the server is called has to be one of this machine's: a foreign name that is made to lead here is refused.
- A content security policy keeps the page from reaching any other host, and viser's tunnel to the outside is shut.

The page comes with a first picture in it (`poster`), if there is one.

viser has no such door. Its web server is made by `websockets.asyncio.server.serve`, which is handed another `process_request`.
"""

import asyncio
import contextlib
import errno
import hmac
import http
import io
import ipaddress
import re
import secrets
import socket
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from taichi_nerf.viewer.poster import with_poster

POLICY = "; ".join(
    (
        "default-src 'self' data: blob:",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval' blob: data:",
        "style-src 'self' 'unsafe-inline'",
        "connect-src 'self' ws://{host} wss://{host} data: blob:",
        "worker-src 'self' blob: data:",
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    )
)
N_PORTS = 1000  # that are tried, as many as viser tries
INSTALL = 'the viewer needs viser: pip install "viser>=1.1,<2"'


class ViewerError(ValueError):
    """Why there is no viewer."""


@dataclass(frozen=True)
class Door:
    """Decides about one request, before viser sees it."""

    host: str  # that the server listens on
    token: str | None

    def admits(self, path: str, headers: Any) -> str | None:
        """The path as viser is to see it, or None: nobody is here."""
        if not self._called_by_its_name(headers.get("Host", "")):
            return None
        origin = headers.get("Origin")
        if origin is not None and urlsplit(origin).netloc != headers.get("Host"):
            return None
        path = path.partition("?")[0]
        if self.token is None:
            return path
        given, _, rest = path.lstrip("/").partition("/")
        if not hmac.compare_digest(given.encode(errors="replace"), self.token.encode()):
            return None
        return "/" + rest

    def _called_by_its_name(self, name: str) -> bool:
        """With a token any name will do: a page that was led here by a foreign name does not know it."""
        if self.token is not None:
            return True
        try:
            host = urlsplit(f"//{name}").hostname
        except ValueError:
            return False
        return host is not None and (host == "localhost" or is_address(host) or host == self.host)


def is_address(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return bool(ipaddress.ip_address(host))
    return False


def is_of_this_machine(host: str) -> bool:
    """Whether only this machine can reach what listens there."""
    return host == "localhost" or (is_address(host) and ipaddress.ip_address(host).is_loopback)


def named(host: str) -> str:
    """What a browser calls who listens there: "any address" is none that another machine could open."""
    return socket.gethostname() if is_address(host) and ipaddress.ip_address(host).is_unspecified else host


def new_token() -> str:
    return secrets.token_urlsafe(18)


def free_port(host: str, port: int) -> int:
    """The first port from `port` on where one can listen; 0 stays 0, the system's choice.

    viser's thread takes a host that cannot be listened at for a port that is taken, and when it has no ports left it ends, while
    its maker waits for ever. Therefore asyncio is asked first, as viser will ask it; in a thread, as notebooks have a loop.
    """
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, _free_port(host, port)).result()


async def _free_port(host: str, port: int) -> int:
    ports = range(port, min(port + N_PORTS, 2**16))
    for tried in ports:
        try:
            (await asyncio.get_running_loop().create_server(asyncio.Protocol, host, tried)).close()
            return tried
        except (OSError, UnicodeError) as error:  # a name that cannot be one is a UnicodeError
            if getattr(error, "errno", None) not in (errno.EADDRINUSE, errno.EACCES):
                raise ViewerError(f"--host {host}: cannot listen there ({error})") from None
    raise ViewerError(f"--port {port}: neither it nor any up to {ports[-1]} is free; choose a lower one")


def start_server(
    host: str, port: int, token: str | None, label: str, poster: Callable[[], bytes | None] = lambda: None
) -> tuple[Any, str]:
    """A `viser.ViserServer` that listens, and where: the port is the next free one."""
    try:
        import viser
        import websockets.asyncio.server as websockets
    except ImportError:
        raise ViewerError(INSTALL) from None
    door, used, port = Door(host, token), [], free_port(host, port)
    serve = websockets.serve

    def serve_behind_door(*arguments: Any, process_request: Callable[..., Any], **options: Any) -> Any:
        used.append(True)
        return serve(*arguments, process_request=guarded(door, process_request, poster), **options)

    # A browser may go at any moment, and what was on its way to it is no matter: not one for the terminal, at every reload.
    warnings.filterwarnings("ignore", message="Queued a .* on a closed connection", category=UserWarning)
    websockets.serve = serve_behind_door  # type: ignore[assignment,misc]
    try:
        with quiet():
            server = viser.ViserServer(host=host, port=port, label=label, verbose=False)
    finally:
        websockets.serve = serve  # type: ignore[misc]
    if not used:
        server.stop()
        raise ViewerError(f"this viser ({viser.__version__}) starts its server in a way of its own, which cannot be guarded")
    server.request_share_url = lambda *_, **__: None  # any page could ask for a tunnel to the outside
    name = named(host)
    shown = f"[{name}]" if ":" in name else name
    return server, f"http://{shown}:{server.get_port()}/" + (f"{token}/" if token else "")


def guarded(door: Door, process_request: Callable[..., Any], poster: Callable[[], bytes | None]) -> Callable[..., Any]:
    def process(connection: Any, request: Any) -> Any:
        path = door.admits(request.path, request.headers)
        if path is None:
            return connection.respond(http.HTTPStatus.NOT_FOUND, "nobody is here\n")
        if request.headers.get("Upgrade", "").lower() == "websocket":
            return None
        jpeg = poster() if path in ("/", "/index.html") else None
        if jpeg is not None:
            del request.headers["Accept-Encoding"]  # the page is to come as it is
        response = process_request(connection, replace(request, path=path))
        if response is not None:
            if jpeg is not None:
                response.body = with_poster(response.body, jpeg)
                del response.headers["Content-Length"]
                response.headers["Content-Length"] = str(len(response.body))
            name = re.sub(r"[^\w.:\[\]-]", "", request.headers.get("Host", ""))
            response.headers["Content-Security-Policy"] = POLICY.format(host=name)
            response.headers["Referrer-Policy"] = "no-referrer"
            response.headers["X-Content-Type-Options"] = "nosniff"
        return response

    return process


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """viser prints addresses, without the token and with a name that may be wrong."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield
