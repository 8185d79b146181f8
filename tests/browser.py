"""A headless Chromium, spoken to through pipes in its DevTools protocol.

https://chromedevtools.github.io/devtools-protocol: messages are JSON, ended by a zero byte. Nothing
but the browser itself is needed for that, no driver and no package.
"""

import base64
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def found() -> str | None:
    """The program, or None where none is installed."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """One tab.

    `errors` collects what its pages complain about: the console, and failed requests. `requests`
    has the addresses of all that they asked for.
    """

    def __init__(self, profile: Path, patience: float = 30):
        to_browser, self._out = os.pipe()
        self._in, from_browser = os.pipe()
        # The program reads commands at 3 and answers at 4. The shell is there to put them there.
        shell = f'exec "$@" 3<&{to_browser} 4>&{from_browser}'
        program = [found() or "", "--headless=new", "--no-sandbox", "--disable-gpu"]
        program += ["--remote-debugging-pipe", "--disable-dev-shm-usage", "--hide-scrollbars"]
        program += ["--no-first-run", f"--user-data-dir={profile}", "about:blank"]
        self._process = subprocess.Popen(
            ["bash", "-c", shell, "bash", *program],
            pass_fds=(to_browser, from_browser),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self.patience = patience
        self.errors: list[str] = []
        self.requests: list[str] = []
        self._unread = b""
        self._number = 0
        self._session: str | None = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def close(self):
        os.close(self._out)
        os.close(self._in)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def call(self, method: str, **arguments: Any) -> dict[str, Any]:
        """The answer to a command; what else happens in the meantime is noted."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": arguments}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._unread:
            ready, _, _ = select.select([self._in], [], [], self.patience)
            assert ready, "Chromium says nothing"
            piece = os.read(self._in, 1 << 16)
            assert piece, "Chromium has ended"
            self._unread += piece
        first, _, self._unread = self._unread.partition(b"\0")
        message = json.loads(first)
        self._note(message.get("method"), message.get("params", {}))
        return message

    def _note(self, method: str | None, event: dict[str, Any]):
        if method == "Runtime.exceptionThrown":
            self.errors.append(str(event["exceptionDetails"]))
        elif method == "Log.entryAdded" and event["entry"]["level"] == "error":
            self.errors.append(f"{event['entry']['text']} {event['entry'].get('url', '')}")
        elif method == "Runtime.consoleAPICalled" and event["type"] == "error":
            self.errors.append(str(event["args"]))
        elif method == "Network.requestWillBeSent":
            self.requests.append(event["request"]["url"])

    def open(self, url: str):
        """Go to a page, and wait until it is there with all its scripts."""
        self.call("Page.navigate", url=url)
        # the scripts of the theme mark the page when they run
        self.until(f"location.href.startsWith({url!r}) && document.readyState == 'complete'")
        self.until("typeof document$ != 'undefined'")

    def value(self, expression: str) -> Any:
        """The value of an expression of JavaScript, of a promise once it is kept."""
        answer = self.call(
            "Runtime.evaluate",
            expression=expression,
            returnByValue=True,
            awaitPromise=True,
            userGesture=True,
        )
        assert "exceptionDetails" not in answer, (expression, answer["exceptionDetails"])
        return answer["result"].get("value")

    def until(self, expression: str) -> Any:
        """The first true value of an expression."""
        deadline = time.monotonic() + self.patience
        while not (value := self.value(expression)):
            assert time.monotonic() < deadline, f"never true: {expression}"
            time.sleep(0.05)
        return value

    def size(self, width: int, height: int, phone: bool = False):
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=phone,
        )

    def prefer(self, scheme: str):
        """`light` or `dark`, as the system of a reader says."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", features=features)

    def picture(self, path: Path):
        """A PNG of what is seen."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))
