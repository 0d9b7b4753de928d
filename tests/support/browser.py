"""A real browser for tests: headless Chromium, driven over its DevTools protocol.

    with Browser(tmp_path) as browser:
        page = browser.open("http://127.0.0.1:8080/")
        page.wait_for("document.querySelector('canvas')")
        page.screenshot()                 # [h, w, 3] bytes
        page.requests                     # every address that the page asked for

Nothing but Chromium itself and `websockets`, which viser needs anyway. Software rendering: no GPU is asked for.
"""

import base64
import json
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path

import imageio.v3 as imageio

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PATIENCE = 60.0  # seconds; machines that run tests may be busy
OPTIONS = (
    "--headless=new --no-sandbox --disable-dev-shm-usage --use-angle=swiftshader --enable-unsafe-swiftshader --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync --disable-extensions --disable-default-apps "
    "--mute-audio --hide-scrollbars --no-proxy-server"
)


class Page:
    """One tab."""

    def __init__(self, address: str):
        from websockets.sync.client import connect

        self._socket = connect(address, max_size=None, open_timeout=PATIENCE, ping_interval=None)  # a busy machine is no dead one
        self._n_calls = 0
        self.requests: list[str] = []  # of pages, pictures, fonts, websockets
        self.console: list[str] = []  # errors that the page logged
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        # viser's websocket lives in a worker, which is a target of its own; it waits until its requests are noted.
        self.call("Target.setAutoAttach", autoAttach=True, waitForDebuggerOnStart=True, flatten=True)

    def call(self, method: str, **parameters):
        self._n_calls += 1
        number = self._n_calls
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self._socket.recv(PATIENCE))
            if answer.get("id") == number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]
            self._note(answer)

    def _note(self, event):
        kind, about = event.get("method"), event.get("params", {})
        if kind == "Target.attachedToTarget":
            for method in ("Network.enable", "Runtime.runIfWaitingForDebugger"):
                self._n_calls += 1
                self._socket.send(json.dumps({"id": self._n_calls, "method": method, "sessionId": about["sessionId"]}))
        if kind == "Network.requestWillBeSent":
            self.requests.append(about["request"]["url"][:200])
        elif kind == "Network.webSocketCreated":
            self.requests.append(about["url"])
        elif kind == "Runtime.exceptionThrown":
            self.console.append(about["exceptionDetails"].get("text", ""))
        elif kind == "Log.entryAdded" and about["entry"]["level"] == "error":
            self.console.append(about["entry"]["text"])

    def go(self, url: str) -> None:
        self.call("Page.navigate", url=url)

    def reload(self) -> None:
        self.call("Page.reload")

    def evaluate(self, expression: str):
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait_for(self, condition, seconds: float = PATIENCE):
        """Until a JavaScript expression, or a function of nothing, is true."""
        ends = time.monotonic() + seconds
        while True:
            found = self.evaluate(f"!!({condition})") if isinstance(condition, str) else condition()
            if found:
                return found
            assert time.monotonic() < ends, f"never true within {seconds} s: {condition}; the page says: {self.text()[:500]}"
            time.sleep(0.05)

    def text(self) -> str:
        return self.evaluate("document.body ? document.body.innerText : ''")

    def screenshot(self):
        """[h, w, 3] bytes."""
        png = self.call("Page.captureScreenshot", format="png")["data"]
        return imageio.imread(base64.b64decode(png), extension=".png")[..., :3]

    def click(self, x: float, y: float) -> None:
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def drag(self, path, pause: float = 0.02) -> None:
        """Along [(x, y), …] with the left button down."""
        self.call("Input.dispatchMouseEvent", type="mousePressed", x=path[0][0], y=path[0][1], button="left", clickCount=1)
        for x, y in path[1:]:
            self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y, button="left", buttons=1)
            time.sleep(pause)
        self.call("Input.dispatchMouseEvent", type="mouseReleased", x=path[-1][0], y=path[-1][1], button="left", clickCount=1)

    def click_first(self, selector: str) -> None:
        """The first element that fits and can be seen, once there is one."""
        self._click_when_found(
            f"[...document.querySelectorAll({json.dumps(selector)})].filter(e => e.getClientRects().length)[0]"
        )

    def click_text(self, text: str, selector: str = "button, label, span, div") -> None:
        """The innermost element that says exactly this and can be seen, once there is one."""
        says = f"e.getClientRects().length && (e.innerText || '').trim() === {json.dumps(text)}"
        self._click_when_found(f"[...document.querySelectorAll({json.dumps(selector)})].filter(e => {says}).at(-1)")

    def _click_when_found(self, expression: str) -> None:
        find = f"""(() => {{
            const e = {expression};
            if (!e) return null;
            e.scrollIntoView({{block: 'center'}});
            const b = e.getBoundingClientRect(), x = b.x + b.width / 2, y = b.y + b.height / 2;
            const there = document.elementFromPoint(x, y);
            return there && (e.contains(there) || there.contains(e)) ? [x, y] : null;
        }})()"""
        place = None
        while (found := self.wait_for(lambda: self.evaluate(find))) != place:  # what unfolds is waited for
            place = found
            time.sleep(0.15)
        self.click(*place)

    def close(self) -> None:
        self.call("Page.close")
        self._socket.close()


class Browser:
    def __init__(self, folder: Path, size: tuple[int, int] = (900, 600)):
        self._folder, self._size, self._pages = folder, size, []

    def __enter__(self):
        assert CHROMIUM is not None
        options = [*OPTIONS.split(), f"--user-data-dir={self._folder}", f"--window-size={self._size[0]},{self._size[1]}"]
        self._process = subprocess.Popen(
            [CHROMIUM, *options, "--remote-debugging-port=0", "about:blank"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        ends, told = time.monotonic() + PATIENCE, self._folder / "DevToolsActivePort"
        while not (told.is_file() and told.read_text().strip()):
            assert self._process.poll() is None, "Chromium ended"
            assert time.monotonic() < ends, "Chromium does not start"
            time.sleep(0.05)
        self._port = told.read_text().split()[0]
        return self

    def open(self, url: str = "about:blank") -> Page:
        """A new tab. What it asks for is noted from the first request on."""
        ask = urllib.request.Request(f"http://127.0.0.1:{self._port}/json/new?about:blank", method="PUT")
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(ask, timeout=PATIENCE) as answer:
            page = Page(json.loads(answer.read())["webSocketDebuggerUrl"])
        page.call(
            "Emulation.setDeviceMetricsOverride", width=self._size[0], height=self._size[1], deviceScaleFactor=1, mobile=False
        )
        self._pages.append(page)
        if url != "about:blank":
            page.go(url)
        return page

    def __exit__(self, *_):
        for page in self._pages:
            page._socket.close()
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
