"""A page that shows the conversation: camera and what the model sees of it, words, levels, gate, decisions, trouble.

It has a button for every service of talk, and a browser on it can be the robot's head: hold to talk, and hear the answer.
Only programs of this computer reach it unless `host` says otherwise, and then only with the token. Browsers give the
microphone to a page of another computer over HTTPS only: tls:=true.
"""

from __future__ import annotations

import asyncio
import threading
import time
from functools import partial
from typing import Any

from rclpy.action import ActionClient
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType  # type: ignore[attr-defined]
from rclpy.node import Node
from std_srvs.srv import SetBool, Trigger

from moshivis_ros.action import Ask, Say
from moshivis_ros.audio import Float
from moshivis_ros.audio.pcm import encode
from moshivis_ros.dashboard.hub import Event, Hub, Page
from moshivis_ros.dashboard.server import Address, Server
from moshivis_ros.errors import ImageError
from moshivis_ros.nodes import observer, pictures
from moshivis_ros.nodes.interface import Interface, Parameter, declare, values
from moshivis_ros.nodes.messages import AUDIO, AudioWriter
from moshivis_ros.nodes.observer import Observer
from moshivis_ros.nodes.pictures import Kept, Pictures
from moshivis_ros.nodes.spin import spin

PARAMETERS = [
    Parameter("host", "127.0.0.1", "address to serve; 0.0.0.0: all of this computer's, which needs a token"),
    Parameter("port", 8765, "0: any that is free", (0, 65535)),
    Parameter("token", "", "word that the address must end in (?token=...)"),
    Parameter(
        "tls", False, "HTTPS, with a certificate of its own, which the browser has to be told to trust"
    ),
    *observer.PARAMETERS,
]
SWITCHES = {"mute": "~/mute", "freeze": "~/freeze_image", "sleep": "~/sleep"}
BUTTONS = {"refresh": "~/refresh_image", "reset": "~/reset", "cancel_loading": "~/cancel_loading"}
ACTIONS = {"say": Say, "ask": Ask}
INTERFACES = [
    *observer.INTERFACES,
    *pictures.INTERFACES,
    Interface("audio_in", "publishes", AUDIO, "the browser's microphone, once somebody has held the button"),
    *(
        Interface(
            f"talk/{name.removeprefix('~/')}",
            "calls",
            f"std_srvs/srv/{kind}",
            "its button, where it is served",
        )
        for names, kind in ((BUTTONS, "Trigger"), (SWITCHES, "SetBool"))
        for name in names.values()
    ),
    *(
        Interface(name, "calls", f"moshivis_ros/action/{action.__name__}", "words that are typed on the page")
        for name, action in ACTIONS.items()
    ),
]
TALK = "talk"
WIDTH = 640  # pixels of the pictures on the page
ANSWER_SECONDS = 10.0
RATES = (8000, 192000)  # Hz, of a browser's sound
APART = 0.5  # seconds by which stamps of a browser's sound may be off before they begin anew


class Dashboard(Node):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__("dashboard", **kwargs)
        declare(self, PARAMETERS)
        given = values(self, PARAMETERS)
        self._hub = Hub()
        self._seen = -1  # stamp of the picture in the cache
        self._showing = threading.Lock()  # it may come before or after it is told of, in threads of their own
        self._buttons: dict[str, Any] = {}
        for names, kind in ((BUTTONS, Trigger), (SWITCHES, SetBool)):
            for do, service in names.items():
                self._buttons[do] = self.create_client(kind, f"{TALK}/{service.removeprefix('~/')}")
        self._goals = {do: ActionClient(self, action, do) for do, action in ACTIONS.items()}
        self._head: Page | None = None  # the page that is the robot's head
        self._ear: Any = None
        self._writer = AudioWriter(given["audio_in_type"])
        self._index = self._stamp = 0  # of the next sound from the head
        self._observer = Observer(self, self._tell, self._on_voice)
        seeing = MutuallyExclusiveCallbackGroup()
        self.apart = ((seeing, 1),)
        self._pictures = Pictures(self, WIDTH, self._on_picture, seeing)
        self.create_timer(1.0, self._on_second, clock=Clock(clock_type=ClockType.STEADY_TIME))
        address = Address(given["host"], given["port"], given["token"], given["tls"])
        self._server = Server(address, self._hub, self._do, self._hear, self._on_gone)
        self.get_logger().info(f"the page: {self._server.url}")

    def close(self) -> None:
        self._server.close()

    # From the robot to the page

    def _tell(self, event: Event) -> None:
        self._hub.tell(event)
        if event["kind"] == "sight" and event["stamp"] != self._seen:
            self._seen = event["stamp"]
            self._show_cached()

    def _show_cached(self) -> None:
        with self._showing:
            kept = self._pictures.of(self._seen) if self._seen else None
            self._hub.cached(self._jpeg(kept) if kept is not None else None)

    def _on_voice(self, frame: Float | None) -> None:
        if frame is None:
            self._hub.tell({"kind": "flush"})
        elif self._hub.listens:
            self._hub.voice(encode(frame).tobytes())

    def _on_picture(self, kept: Kept) -> None:
        self._hub.live(partial(self._jpeg, kept))
        if kept.stamp == self._seen:
            self._show_cached()

    def _jpeg(self, kept: Kept) -> bytes | None:
        try:
            return kept.jpeg
        except ImageError as error:
            self.get_logger().warning(f"a picture is not shown: {error}", throttle_duration_sec=60.0)
            return None

    def _on_second(self) -> None:
        able = [do for do, client in self._buttons.items() if client.service_is_ready()]
        able += [do for do, client in self._goals.items() if client.server_is_ready()]
        self._hub.tell({"kind": "able", "do": able})

    # From the page to the robot; called by the server's thread

    async def _do(self, wish: Event, page: Page) -> tuple[bool, str]:
        do = str(wish["do"])
        if do == "hear":
            page.hears = bool(wish.get("on"))
            return True, ""
        if do == "head":
            return self._become_head(page)
        if do in self._goals:
            return await self._act(do, str(wish.get("text", "")))
        if do not in self._buttons:
            return False, f"the page asked for {do!r}, which this node does not know"
        request = SetBool.Request(data=bool(wish.get("on"))) if do in SWITCHES else Trigger.Request()
        if not self._buttons[do].service_is_ready():
            return False, "the node talk does not answer"
        response = await _result(self._buttons[do].call_async(request))
        return (
            (False, "the node talk did not answer")
            if response is None
            else (response.success, response.message)
        )

    async def _act(self, do: str, text: str) -> tuple[bool, str]:
        if not self._goals[do].server_is_ready():
            return False, "the node talk does not answer"
        goal = await _result(self._goals[do].send_goal_async(ACTIONS[do].Goal(text=text)))
        if goal is None or not goal.accepted:
            return False, "the node talk is not active"
        goal.get_result_async().add_done_callback(partial(self._on_acted, do))
        return True, f"will {do} it"

    def _on_acted(self, do: str, future: Any) -> None:
        """The robot has said it, or why not; whoever looks is told."""
        result = future.result().result
        words = (result.said if do == "say" else result.answer).strip()
        self._hub.tell({"kind": "answer", "do": do, "done": result.success, "words": result.reason or f"{do}: {words}"})

    def _become_head(self, page: Page) -> tuple[bool, str]:
        if self._head is page:
            return True, ""
        if self._head is not None:
            return False, "another page is the robot's microphone"
        others = self.count_publishers("audio_in")
        if others:
            return False, f"the robot hears {others} microphone already; launch it with microphone:=false"
        self._ear = self.create_publisher(self._writer.type, "audio_in", 100)
        self._index = self._stamp = 0
        self._head = page
        return True, ""

    def _hear(self, page: Page, rate: int, samples: bytes) -> None:
        if page is not self._head or not RATES[0] <= rate <= RATES[1] or len(samples) % 2:
            return
        length = len(samples) // 2 * 1_000_000_000 // rate
        began = self.get_clock().now().nanoseconds - length
        if abs(began - self._stamp) > APART * 1e9:
            self._stamp = began
        self._ear.publish(
            self._writer.write(samples, self._index, self._stamp, rate, frame_id="browser")
        )
        self._index += 1
        self._stamp += length

    def _on_gone(self, page: Page) -> None:
        if page is self._head:
            self._head = None
            self.destroy_publisher(self._ear)


async def _result(future: Any) -> Any:
    """Of a future of rclpy, which another thread completes; None where it does not come."""
    end = time.monotonic() + ANSWER_SECONDS
    while not future.done() and time.monotonic() < end:
        await asyncio.sleep(0.02)
    return future.result() if future.done() else None


def main(args: list[str] | None = None) -> int:
    return spin(Dashboard, args)
