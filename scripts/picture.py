"""Make docs/dashboard.png: `make talk DASHBOARD=1`, as a browser shows it when the robot has answered. Needs Chromium.

    python scripts/picture.py
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "tests" / "nodes"))

from browser import Browser  # noqa: E402

from moshivis_ros.nodes.demo import PAGE, prefix  # noqa: E402

SIZE = (1200, 900)  # pixels


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        command = [prefix() / "lib" / "moshivis_ros" / "demo", "--dashboard", "--out", folder]
        demo = subprocess.Popen(
            [str(part) for part in command],
            env={**os.environ, "BROWSER": "true"},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert demo.stdout is not None
        browser = Browser(Path(folder))
        try:
            while "[shown" not in (line := demo.stdout.readline()):
                assert line, "the demo has ended"
            browser.size(*SIZE)
            browser.open("http://{}:{}".format(*PAGE))
            browser.until("document.body.innerText.includes('green')")
            browser.screenshot(ROOT / "docs" / "dashboard.png")
        finally:
            browser.close()
            demo.terminate()
            demo.wait()


if __name__ == "__main__":
    main()
