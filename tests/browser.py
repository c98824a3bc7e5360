"""A real browser for tests: Debian's chromium without a window, spoken to over its debugging pipe."""

import base64
import json
import os
import select
import shutil
import subprocess
import time
from contextlib import contextmanager

CHROMIUM = shutil.which("chromium")
_FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-extensions --hide-scrollbars --disable-dev-shm-usage "
    "--remote-debugging-pipe"
).split()
PATIENCE = 60.0


class Page:
    """One tab. ``requests``: URLs that it asked for; ``complaints``: what stands in its console, exceptions too."""

    def __init__(self, send, receive):
        self._send, self._receive = send, receive
        self._number, self.requests, self.complaints, self._events = 0, [], [], []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime"):
            self.call(f"{domain}.enable")

    _session = None

    def call(self, method, **parameters):
        """One command of the protocol, and its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._send(message)
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]
            self._note(answer)

    def _note(self, event):
        method, facts = event.get("method", ""), event.get("params", {})
        self._events.append(method)
        if method == "Network.requestWillBeSent":
            self.requests.append(facts["request"]["url"])
        elif method == "Log.entryAdded":
            self.complaints.append(facts["entry"]["text"])
        elif method in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown"):
            self.complaints.append(json.dumps(facts)[:500])

    def open(self, url, width, height=900, dark=False):
        """Show a page as a device of this size and taste does; returns when it has loaded."""
        # A phone would widen its view to whatever sticks out, and nothing would stick out any more.
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self._events.clear()
        self.call("Page.navigate", url=url)
        while "Page.loadEventFired" not in self._events:
            self._note(self._receive())

    def ask(self, expression):
        """The value of a JavaScript expression, whatever the page's policy says of scripts of its own."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def picture(self, whole=False):
        """What is in view as PNG, or the ``whole`` page."""
        return base64.b64decode(self.call("Page.captureScreenshot", captureBeyondViewport=whole)["data"])


@contextmanager
def browser(folder):
    """A tab of a browser that keeps everything it writes in ``folder``."""
    ours, theirs = os.pipe(), os.pipe()  # it reads commands from 3 and writes to 4

    def handed_over():
        os.dup2(os.dup(ours[0]), 13)
        os.dup2(os.dup(theirs[1]), 14)
        os.dup2(13, 3)
        os.dup2(14, 4)

    process = subprocess.Popen(
        [CHROMIUM, *_FLAGS, f"--user-data-dir={folder}"],
        preexec_fn=handed_over, close_fds=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True, env={**os.environ, "HOME": str(folder)},
    )  # fmt: skip
    os.close(ours[0])
    os.close(theirs[1])
    waiting = bytearray()

    def send(message):
        os.write(ours[1], json.dumps(message).encode() + b"\0")

    def receive():
        until = time.monotonic() + PATIENCE
        while b"\0" not in waiting:
            left = max(0, until - time.monotonic())
            assert select.select([theirs[0]], [], [], left)[0], "the browser says nothing"
            more = os.read(theirs[0], 1 << 16)
            assert more, f"the browser has ended: {process.wait()}"
            waiting.extend(more)
        message, _, rest = bytes(waiting).partition(b"\0")
        waiting[:] = rest
        return json.loads(message)

    try:
        yield Page(send, receive)
        send({"id": 0, "method": "Browser.close"})
        process.wait(20)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, 9)
            process.wait()
        os.close(ours[1])
        os.close(theirs[0])
