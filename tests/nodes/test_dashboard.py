"""The dashboard: a real page in a real browser, real nodes; and whom its server lets in."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from moshivis_ros.msg import Audio, ImageCacheStatus, Transcript
from rclpy.qos import DurabilityPolicy, QoSProfile
from robot import Process, Robot

from moshivis_ros.audio import files
from moshivis_ros.nodes.messages import to_nanoseconds

aiohttp = pytest.importorskip("aiohttp", reason="pip install 'moshivis_ros[dashboard]'")

from browser import Browser  # noqa: E402

MEDIA = Path(__file__).parents[2] / "media"
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
SHOTS = os.environ.get("SCREENSHOTS")  # a folder for those who want to look


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    sound = np.concatenate([files.read(MEDIA / "question.wav"), np.zeros(60000, np.float32)])
    files.write(tmp_path / "microphone.wav", sound)
    opened = Browser(tmp_path, tmp_path / "microphone.wav")
    yield opened
    opened.close()


def url(robot: Robot, node: Process) -> str:
    return robot.until(lambda: re.search(r"the page: (\S+)", node.log))[1]


def test_a_question_is_asked_and_answered_in_the_browser(robot: Robot, browser: Browser, tmp_path: Path) -> None:
    """Held to talk, its microphone's "What colour is the ball?" is answered on the page: laptop and camera are a robot."""
    node = robot.start("dashboard", port=0)
    robot.start("talk", seed=1)
    robot.start("video_file", path=MEDIA / "scene_b.jpg", loop=True, format="jpeg", rate=5.0)
    browser.open(url(robot, node))
    assert robot.change_state("configure", "activate")
    cache = robot.collect(ImageCacheStatus, "image_cache", LATCHED)
    robot.until(lambda: any(status.has_image for status in cache))
    browser.until("document.getElementById('live').naturalWidth && document.getElementById('cached').naturalWidth")
    browser.until("document.getElementById('age').textContent.includes('s old')")

    heard = robot.collect(Audio, "audio_in", 10_000)
    browser.press("#hold", up=False)
    # The question comes again and again: on a busy machine the first may be heard in part only.
    text = "document.getElementById('transcript').innerText"
    assert "robot" in browser.until(f"{text}.includes('green') && {text}")
    browser.press("#hold", down=False)
    released = robot.node.get_clock().now().nanoseconds + 2_000_000_000  # with what was on its way
    shade = browser.js("getComputedStyle([...document.querySelectorAll('#transcript span')].pop()).backgroundColor")
    assert re.fullmatch(r"rgb\(\d+, \d+, \d+\)", shade) and shade != "rgb(232, 232, 232)"  # it looked at the picture
    user = robot.publisher(Transcript, "user_transcript")
    for guess, final in (("wet", False), ("<what> colour", True)):  # the second in place of the first
        user.publish(Transcript(text=guess, final=final, utterance=3, speaker="user"))
    browser.until(f"{text}.includes('<what> colour')")
    assert "wet" not in browser.js(text)

    browser.until("document.getElementById('health').innerText.includes('talk engine: talking')")
    browser.until("document.getElementById('framenow').textContent.includes('of 80 ms')")
    answered = "document.getElementById('answer').textContent"
    before = max(status.refreshes for status in cache)
    browser.press("button[data-do=refresh]")
    browser.until(f"{answered}.includes('newest picture')")
    robot.until(lambda: cache[-1].refreshes > before)
    browser.until("document.getElementById('decision').textContent.includes('keep')")
    for words, answer in (("there is a red ball", "say: there is a red ball"), ("zebra", "cannot say: zebra")):
        browser.js(f"document.getElementById('text').value = {words!r}")
        browser.press("button[value=say]")
        browser.until(f"{answered}.includes({answer!r})")
    assert "there is a red ball" in browser.js(text)
    browser.press("button[data-do=freeze]")
    browser.until(f"{answered} === 'frozen'")
    browser.press("button[data-do=mute]")
    browser.until(f"{answered} === 'muted'")
    for name, pixels in (("levels", 100), ("gate", 100), ("distance", 100)):
        browser.until(
            f"(() => {{ const c = document.getElementById({name!r}), d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
            f" let n = 0; for (let k = 3; k < d.length; k += 4) n += d[k] > 0; return n > {pixels}; }})()"
        )
    browser.press("button[data-do=sleep]")
    browser.until(f"{answered}.includes('asleep')")
    # While nobody holds the button the robot hears nothing, whatever the browser's microphone hears.
    robot.until(lambda: heard and to_nanoseconds(heard[-1].header.stamp) > released + 4_500_000_000)
    numbers = [message.index for message in heard]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert not any(any(message.data) for message in heard if to_nanoseconds(message.header.stamp) > released)
    if SHOTS:
        for width, height in ((1280, 900), (390, 844)):
            browser.size(width, height)
            browser.js("new Promise((done) => setTimeout(done, 700))")
            browser.screenshot(Path(SHOTS) / f"dashboard_{width}.png")


async def statuses(page: str, certificate: bool = False) -> dict[str, int]:
    """HTTP status of ways to ask for the WebSocket: 101 lets in."""
    found = {}
    root, _, query = page.partition("?")
    ways = {
        "as told": (query, {}),
        "without token": ("", {}),
        "wrong token": ("token=s%C3%A9same", {}),
        "another site's page": (query, {"Origin": "https://example.org"}),
        "a name that leads here": (query, {"Host": "example.org"}),
    }
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=False)) as session:
        for name, (given, headers) in ways.items():
            try:
                async with session.ws_connect(f"{root}ws?{given}", headers=headers) as link:
                    found[name] = 101
                    assert (await link.receive(timeout=60)).data
            except aiohttp.WSServerHandshakeError as error:
                found[name] = error.status
    return found


async def answers(page: str, *wishes: str) -> list[str]:
    """What the page is told of each wish, over one connection."""
    found = []
    root, _, given = page.partition("?")
    async with aiohttp.ClientSession() as session, session.ws_connect(f"{root}ws?{given}") as link:
        for wish in wishes:
            await link.send_str(wish)
            while len(found) < wishes.index(wish) + 1:
                message = await link.receive(timeout=60)
                if message.type == aiohttp.WSMsgType.TEXT:
                    found += [each["words"] for each in json.loads(message.data) if each["kind"] == "answer"]
    return found


def test_who_is_let_in(robot: Robot, tmp_path: Path) -> None:
    open_here = robot.start("dashboard", port=0)
    closed = robot.start(
        "dashboard", "-r", "__node:=dashboard2", environment={"XDG_CACHE_HOME": str(tmp_path)},
        port=0, token="sesame", tls=True, host="0.0.0.0",
    )  # fmt: skip
    refused = robot.start("dashboard", "-r", "__node:=dashboard3", port=0, host="0.0.0.0")
    assert asyncio.run(statuses(url(robot, open_here))) == {
        "as told": 101, "without token": 101, "wrong token": 101, "another site's page": 403, "a name that leads here": 403,
    }  # fmt: skip
    no_object, no_name, no_string, unknown, no_text = asyncio.run(
        answers(url(robot, open_here), "{", "[1]", '{"do": [1]}', '{"do": "dance"}', '{"do": "say"}')
    )
    assert "'[1]', which this node does not know" in no_string
    assert no_object.endswith("not '{'") and no_name.endswith("not '[1]'") and "'dance'" in unknown and "talk" in no_text
    page = url(robot, closed)
    port = re.fullmatch(rf"https://{socket.gethostname()}:(\d+)/\?token=sesame", page)[1]
    assert asyncio.run(statuses(f"https://127.0.0.1:{port}/?token=sesame")) == {
        "as told": 101, "without token": 403, "wrong token": 403, "another site's page": 403, "a name that leads here": 101,
    }  # fmt: skip
    (certificate,) = tmp_path.glob("moshivis_ros/tls/*.pem")
    assert certificate.stat().st_mode & 0o77 == 0
    assert refused.wait() == 2 and "give a token" in refused.log and "Traceback" not in refused.log
