"""Who comes in at the door of the viewer's server, and what is said to who may not."""

import base64
import contextlib
import queue
import socket
import sys
import threading
import urllib.error
import urllib.request
import warnings

import pytest

from taichi_nerf.viewer.server import Door, ViewerError, free_port, is_of_this_machine, named, start_server


@pytest.mark.parametrize(
    ("token", "path", "headers", "admitted"),
    [
        (None, "/", {"Host": "127.0.0.1:8080"}, "/"),
        (None, "/", {"Host": "localhost:9"}, "/"),
        (None, "/", {"Host": "[::1]:8080"}, "/"),
        (None, "/", {"Host": "evil.example"}, None),
        (None, "/", {"Host": "localhost.evil.example"}, None),
        (None, "/", {}, None),
        (None, "/", {"Host": "localhost:80", "Origin": "http://localhost:80"}, "/"),
        (None, "/", {"Host": "localhost:80", "Origin": "http://localhost:81"}, None),
        (None, "/", {"Host": "localhost:80", "Origin": "https://evil.example"}, None),
        (None, "/", {"Host": "localhost:80", "Origin": "null"}, None),
        ("abcdefgh", "/abcdefgh/", {"Host": "any.name"}, "/"),
        ("abcdefgh", "/abcdefgh", {"Host": "any.name"}, "/"),
        ("abcdefgh", "/abcdefgh/a.js?b", {"Host": "any.name"}, "/a.js"),
        ("abcdefgh", "/", {"Host": "any.name"}, None),
        ("abcdefgh", "/abcdefg/", {"Host": "any.name"}, None),
        ("abcdefgh", "/\xff", {"Host": "any.name"}, None),
        ("abcdefgh", "/abcdefgh/", {"Host": "any.name", "Origin": "http://other.name"}, None),
    ],
)
def test_the_door(token, path, headers, admitted):
    assert Door("127.0.0.1", token).admits(path, headers) == admitted


@pytest.mark.parametrize(
    ("host", "inside"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("192.168.1.2", False), ("a.name", False)],
)
def test_which_hosts_only_this_machine_reaches(host, inside):
    assert is_of_this_machine(host) == inside


def test_who_listens_at_any_address_is_called_by_this_machine_s_name():
    assert named("0.0.0.0") == named("::") == socket.gethostname()
    assert named("192.168.1.2") == "192.168.1.2"
    assert named("a.name") == "a.name"


def test_without_viser_one_line_tells_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "viser", None)
    with pytest.raises(ViewerError, match='pip install "viser'):
        start_server("127.0.0.1", 0, None, "x")


@pytest.mark.parametrize("host", ["192.0.2.1", "no.such.host.invalid", "a" * 70 + ".invalid"])  # 192.0.2.x is nobody's
def test_where_nobody_can_listen_is_told_in_one_line(host):
    pytest.importorskip("viser")
    with pytest.raises(ViewerError, match=f"^--host {host}: cannot listen there"):
        start_server(host, 0, None, "x")


def test_the_next_free_port_is_taken_while_there_is_one():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert free_port("127.0.0.1", port) > port
    assert free_port("127.0.0.1", 0) == 0
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # if somebody else has it, so much the better
            stack.enter_context(socket.create_server(("127.0.0.1", 65535)))
        with pytest.raises(ViewerError, match=r"^--port 65535: "):
            free_port("127.0.0.1", 65535)


def fetch(url, **headers):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(urllib.request.Request(url, headers=headers), timeout=30) as answer:
            return answer.status, dict(answer.headers)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, {}


@pytest.mark.filterwarnings("ignore")
def test_a_real_server_with_a_token(capfd):
    """Page and websocket: with the token they are there, without it nothing is; and nobody opens a tunnel."""
    viser = pytest.importorskip("viser")
    from websockets.exceptions import InvalidStatus
    from websockets.sync.client import connect

    server, url = start_server("127.0.0.1", 0, "secret-token", "x")
    try:
        root = url.removesuffix("secret-token/")
        status, headers = fetch(url)
        assert status == 200
        assert f"connect-src 'self' ws://{root[7:-1]} " in headers["Content-Security-Policy"]
        assert fetch(root)[0] == fetch(root + "other-token/")[0] == 404
        assert fetch(url, Origin="http://evil.example")[0] == 404
        protocols = [f"viser-v{viser.__version__}"]
        socket = url.replace("http", "ws").rstrip("/")
        with connect(socket, subprotocols=protocols, proxy=None) as good:
            assert good.recv(30)  # the scene, from its beginning
        for bad, origin in ((root.replace("http", "ws"), None), (socket, "http://evil.example")):
            with pytest.raises(InvalidStatus, match="404"):
                connect(bad, subprotocols=protocols, origin=origin, proxy=None)
        assert server.request_share_url() is None
    finally:
        server.stop()
    assert "secret-token" not in capfd.readouterr().out


def test_what_is_on_its_way_to_a_browser_that_went_is_not_told_on_the_terminal():
    """Thumbnails of a large scene are, whenever its page is reloaded. Warnings are errors here."""
    viser = pytest.importorskip("viser")
    import msgspec
    from websockets.sync.client import connect

    camera = {"type": "ViewerCameraMessage", "wxyz": [0, 1, 0, 0], "position": [0, 0, 3], "fov": 0.8, "near": 0.1, "far": 100.0}
    camera |= {"image_width": 150, "image_height": 100, "look_at": [0, 0, 0], "up_direction": [0, 0, 1]}
    with warnings.catch_warnings():
        server, url = start_server("127.0.0.1", 0, None, "x")
        came, went = queue.Queue(), threading.Event()
        server.on_client_connect(came.put)
        server.on_client_disconnect(lambda _: went.set())
        try:
            with connect(url.replace("http", "ws").rstrip("/"), subprotocols=[f"viser-v{viser.__version__}"], proxy=None) as page:
                page.send(msgspec.msgpack.encode(camera))
                client = came.get(timeout=60)
            assert went.wait(60)
            client.scene.add_frame("/late")
            with pytest.raises(UserWarning, match="of something else"):
                warnings.warn("of something else", stacklevel=1)
        finally:
            server.stop()


@pytest.mark.filterwarnings("ignore")
def test_the_page_comes_with_a_first_picture_in_it():
    """Whether or not the browser would take it compressed; nothing of viser's own page is lost."""
    pytest.importorskip("viser")
    jpegs: list[bytes | None] = [None]
    server, url = start_server("127.0.0.1", 0, None, "x", lambda: jpegs[0])
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        plain = opener.open(url, timeout=30).read()
        jpegs[0] = b"\xff\xd8 not really"
        ask = urllib.request.Request(url, headers={"Accept-Encoding": "gzip, br"})
        with opener.open(ask, timeout=30) as answer:
            page, told = answer.read(), answer.headers
        assert told["Content-Encoding"] == "identity"
        assert int(told["Content-Length"]) == len(page)
        where = page.index(b"data:image/jpeg;base64,") + 23
        assert base64.b64decode(page[where : page.index(b'"', where)]) == jpegs[0]
        assert where < page.rindex(b"<script")  # before viser's own
        start, end = page.index(b"</head><body>"), page.rindex(b"<script")
        assert page[:start] + page[end:] == plain
    finally:
        server.stop()
