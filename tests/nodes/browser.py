"""A headless Chromium under test, driven by the protocol of its developer tools."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest

SECONDS = 60.0


class Browser:
    """One page. `microphone`: a recording that its fake microphone plays again and again, from when the page opens it."""

    def __init__(self, folder: Path, microphone: Path | None = None) -> None:
        program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
        if program is None:
            pytest.skip("Chromium is not installed: apt install chromium")
        self._log = folder / "chromium.log"
        options = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
        if microphone is not None:
            options.append(f"--use-file-for-fake-audio-capture={microphone}")
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    program, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
                    "--ignore-certificate-errors", "--remote-debugging-port=0", f"--user-data-dir={folder / 'profile'}",
                    *options, "about:blank",
                ],
                stdout=subprocess.DEVNULL, stderr=log, start_new_session=True,
            )  # fmt: skip
        self._loop = asyncio.new_event_loop()
        self._number = 0
        try:
            self._loop.run_until_complete(self._connect())
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        if hasattr(self, "_session"):
            self._loop.run_until_complete(self._session.close())
        self._loop.close()
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def open(self, url: str) -> None:
        self.call("Page.enable")
        self.call("Page.navigate", url=url)
        self.until("document.readyState === 'complete'")

    def js(self, expression: str) -> Any:
        """The value of an expression on the page."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def until(self, expression: str) -> Any:
        """Ask until it is something true."""
        end = time.monotonic() + SECONDS
        while not (value := self.js(expression)):
            assert time.monotonic() < end, f"never: {expression}\n{self.js('document.body.innerText')}"
            time.sleep(0.05)
        return value

    def press(self, selector: str, down: bool = True, up: bool = True) -> None:
        """The mouse, as a person's: on the middle of what is shown there."""
        box = self.js(
            f"(() => {{ const b = document.querySelector({selector!r}).getBoundingClientRect();"
            " return [b.x + b.width / 2, b.y + b.height / 2]; })()"
        )
        for kind in (["mousePressed"] if down else []) + (["mouseReleased"] if up else []):
            self.call("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left", clickCount=1)

    def size(self, width: int, height: int) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def call(self, method: str, **parameters: Any) -> Any:
        return self._loop.run_until_complete(self._call(method, parameters))

    async def _connect(self) -> None:
        end = time.monotonic() + SECONDS
        while not (found := re.search(r"DevTools listening on ws://([^/]+)/", self._log.read_text(errors="replace"))):
            assert self._process.poll() is None and time.monotonic() < end, self._log.read_text(errors="replace")
            await asyncio.sleep(0.05)
        self._session = aiohttp.ClientSession()
        while True:
            async with self._session.get(f"http://{found[1]}/json") as answer:
                pages = [page for page in await answer.json() if page["type"] == "page"]
            if pages:
                break
            await asyncio.sleep(0.05)
        self._socket = await self._session.ws_connect(pages[0]["webSocketDebuggerUrl"], max_msg_size=0)

    async def _call(self, method: str, parameters: dict[str, Any]) -> Any:
        self._number += 1
        await self._socket.send_str(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:  # events come between
            answer = json.loads((await self._socket.receive(timeout=SECONDS)).data)
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]
