"""A conversation about what the camera sees: sound and pictures in, speech and its transcript out.

A managed (lifecycle) node: configure loads the model, activate starts talking, deactivate stops at once and
keeps the model, cleanup frees its memory. The conversation runs in a process of its own (engine.py); here
messages are copied in and out.
"""

from __future__ import annotations

import time
import traceback
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType  # type: ignore[attr-defined]
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CompressedImage, Image
from std_srvs.srv import SetBool, Trigger

from moshivis_ros.engine.engine import Engine
from moshivis_ros.engine.events import Ended, EngineSettings, Event, Loaded, Sight, Spoken, Trouble
from moshivis_ros.errors import MoshiVisError
from moshivis_ros.msg import Audio, Gate, ImageCacheStatus, Transcript
from moshivis_ros.nodes.health import LARGE_IMAGES, Health, Source
from moshivis_ros.nodes.interface import declare, values
from moshivis_ros.nodes.messages import AudioReader, to_audio, to_nanoseconds, to_time
from moshivis_ros.nodes.spin import spin
from moshivis_ros.nodes.subscription import MatchedSubscription
from moshivis_ros.nodes.talk_interface import INTERFACES, PARAMETERS, REFRESH, SAMPLING
from moshivis_ros.transcript import Piece
from moshivis_ros.vision.refresh_policy import Settings

__all__ = ["INTERFACES", "PARAMETERS", "Talk", "main"]

SUCCESS, FAILURE, ERROR = (
    TransitionCallbackReturn.SUCCESS,
    TransitionCallbackReturn.FAILURE,
    TransitionCallbackReturn.ERROR,
)
PROGRESS_SECONDS = 5.0  # between two lines in the log while the model is loading
WARNING_SECONDS = 5.0  # between two warnings of one kind
REMINDER_SECONDS = 60.0  # between two about the same standing problem


class Talk(LifecycleNode):
    """The lifecycle node around one Engine."""

    def __init__(self) -> None:
        super().__init__("talk")
        declare(self, PARAMETERS, read_only=False)
        self.add_on_set_parameters_callback(self._refuse_while_configured)
        self._engine: Engine | None = None
        self._failure: str | None = None
        self._active = self._muted = False
        self._health = Health()
        self._warned: dict[str, float] = {}
        self._audio_in: MatchedSubscription | None = None
        self._cameras: list[MatchedSubscription] = []
        self._index = 0  # of the next audio_out message: consecutive as long as the node lives
        self._shown: tuple[Any, ...] = ()

        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._audio_out = self.create_lifecycle_publisher(Audio, "audio_out", 10)
        self._transcript = self.create_lifecycle_publisher(Transcript, "transcript", 50)
        self._gate = self.create_lifecycle_publisher(Gate, "gate", 10)
        self._image_cache = self.create_lifecycle_publisher(ImageCacheStatus, "image_cache", latched)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self.create_service(Trigger, "~/refresh_image", self._on_refresh_image)
        self.create_service(Trigger, "~/reset", self._on_reset)
        self.create_service(SetBool, "~/mute", self._on_mute)
        self.create_service(SetBool, "~/freeze_image", self._on_freeze_image)
        # Not the node's clock: with use_sim_time a paused simulation would hide its own trouble.
        self.create_timer(1.0, self._on_second, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self._engine_ended = self.create_guard_condition(self._on_engine_ended)

    # Lifecycle

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Loads the model, which may take minutes; says every few seconds how far it is."""
        self._failure = None
        try:
            settings = self._settings()
            self._reader = AudioReader(
                *(
                    self.get_parameter(name).value
                    for name in ("audio_in_type", "audio_in_rate", "audio_in_channels")
                )
            )
            self._engine = Engine(settings, self._on_event)
            self._wait_until_loaded(self._engine, settings.model)
        except MoshiVisError as error:
            self._fail(str(error))
            return FAILURE
        except Exception:  # rclpy would swallow it without a word
            self._fail(traceback.format_exc())
            return ERROR
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        assert self._engine is not None
        if not self._engine.alive:
            return ERROR
        result = super().on_activate(state)
        self._active = True
        self._shown = ()
        self._health.begin()
        self._sound, self._camera = Source("sound"), Source("pictures", LARGE_IMAGES)
        self._engine.start(self.get_clock().now().nanoseconds)
        self._audio_in = MatchedSubscription(self, self._reader.type, "audio_in", self._on_audio, depth=50)
        transport, reliability = (
            self.get_parameter(f"image_{name}").value for name in ("transport", "reliability")
        )
        for kind, topic, callback in (
            (Image, "image", self._on_image),
            (CompressedImage, "image/compressed", self._on_compressed),
        ):
            if transport in ("both", "raw" if kind is Image else "compressed"):
                self._cameras.append(MatchedSubscription(self, kind, topic, callback, 1, reliability))
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._stop()
        result = super().on_deactivate(state)
        return ERROR if self._failure else result

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.close()
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.close()
        return super().on_shutdown(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """The engine is gone: back to unconfigured, ready to be configured again."""
        self.close()
        super().on_deactivate(state)
        return SUCCESS

    def close(self) -> None:
        """Ends the engine process, if there is one."""
        self._stop()
        if self._engine is not None:
            self._engine.close()
            self._engine = None

    def _stop(self) -> None:
        self._active = False
        if self._engine is not None:
            self._engine.stop()
        for subscription in (*self._cameras, self._audio_in):
            if subscription is not None:
                subscription.close()
        self._cameras, self._audio_in = [], None

    def _settings(self) -> EngineSettings:
        given = values(self, PARAMETERS)
        return EngineSettings(
            model=given["model"],
            revision=given["revision"],
            device=given["device"],
            dtype="" if given["dtype"] == "auto" else given["dtype"],
            quantize=given["quantize"],
            kv_cache=given["kv_cache"],
            seed=None if given["seed"] < 0 else given["seed"],
            image_size=given["image_size"] or None,
            sampling={k: v for k, v in values(self, SAMPLING).items() if v >= 0},
            refresh=Settings(**{row.name.removeprefix("refresh_"): given[row.name] for row in REFRESH}),
            max_backlog=given["max_backlog"],
            realtime_priority=given["realtime_priority"],
        )

    def _wait_until_loaded(self, engine: Engine, model: str) -> None:
        self.get_logger().info(f"loading {model}")
        start = told = time.monotonic()
        while not engine.wait_until_loaded(0.2):
            if not self.context.ok():
                raise MoshiVisError("interrupted while loading the model")
            if time.monotonic() - told > PROGRESS_SECONDS:
                told = time.monotonic()
                self.get_logger().info(
                    f"loading {model}: {told - start:.0f} s, {engine.resident_mb:.0f} MB in memory"
                )

    def _fail(self, reason: str) -> None:
        self._failure = reason
        self.get_logger().error(reason)
        self.close()

    def _on_engine_ended(self) -> None:
        if self._active:
            self.trigger_deactivate()  # ends in error processing, and that in unconfigured
        elif self._engine is not None:
            self.trigger_cleanup()

    def _refuse_while_configured(self, parameters: list[Any]) -> SetParametersResult:
        names = {row.name for row in PARAMETERS}
        late = [parameter.name for parameter in parameters if parameter.name in names]
        if self._engine is None or not late:
            return SetParametersResult(successful=True)
        reason = (
            f"{', '.join(late)}: read when the node is configured; clean it up first (ros2 lifecycle set)"
        )
        return SetParametersResult(successful=False, reason=reason)

    # In

    def _on_audio(self, message: Any) -> None:
        self._sound.came()
        if self._engine is not None:
            data, fields = self._reader.read(message, self.get_clock().now().nanoseconds)
            self._engine.hear(data, **fields)

    def _on_image(self, message: Image) -> None:
        self._show(
            message,
            encoding=message.encoding,
            height=message.height,
            width=message.width,
            step=message.step,
            is_bigendian=bool(message.is_bigendian),
        )

    def _on_compressed(self, message: CompressedImage) -> None:
        self._show(message, format=message.format)

    def _show(self, message: Image | CompressedImage, **fields: Any) -> None:
        self._camera.came()
        if self._engine is not None:
            stamp = to_nanoseconds(message.header.stamp) or self.get_clock().now().nanoseconds
            self._engine.show(
                memoryview(message.data), stamp=stamp, frame_id=message.header.frame_id, **fields
            )

    # Out: called by the engine's thread

    def _on_event(self, event: Event) -> None:
        if not self.context.ok():
            return
        if isinstance(event, Spoken):
            self._publish(event)
        elif isinstance(event, Trouble):
            self._warn(event.text)
        elif isinstance(event, Loaded):
            model = "a RANDOM model: it makes sounds, not sense" if event.random else "the model"
            weights = f" with {event.quantized} weights" if event.quantized else ""
            self.get_logger().info(f"loaded {model}{weights} on {event.device} in {event.seconds:.1f} s")
            if event.realtime_priority < (wanted := self.get_parameter("realtime_priority").value):
                self.get_logger().info(
                    f"realtime_priority {wanted}: not allowed here, so frames may wait for other programs (allow it "
                    "by a limit for rtprio in /etc/security/limits.conf)"
                )
            if event.about:
                self.get_logger().info(f"it can talk about {event.about}")
        elif isinstance(event, Ended):
            self._failure = event.text
            self.get_logger().error(event.text)
            self._engine_ended.trigger()

    def _publish(self, spoken: Spoken) -> None:
        self._health.add(spoken)
        samples = bytes(len(spoken.samples)) if self._muted else spoken.samples
        self._audio_out.publish(to_audio(samples, self._index, spoken.stamp))
        self._index += 1
        gate = Gate(
            frame=spoken.index,
            value=spoken.gate,
            normalised=spoken.gate_normalised,
            per_layer=spoken.gate_per_layer,
        )
        gate.header.stamp = to_time(spoken.stamp)
        self._gate.publish(gate)
        for text in spoken.text:
            self._transcript.publish(_transcript(text, spoken.stamp))
        sight = spoken.sight
        shown = (sight.decision, sight.reason, sight.refreshes, sight.has_image)
        if shown != self._shown or spoken.index % 12 == 0:
            self._shown = shown
            self._image_cache.publish(_image_cache(sight))

    def _warn(self, text: str, about: str = "", seconds: float = WARNING_SECONDS) -> None:
        """Log a warning, unless one `about` the same (by default: with the same text) came a moment ago."""
        now, about = time.monotonic(), about or text
        if now - self._warned.get(about, -seconds) >= seconds:
            self._warned = {key: when for key, when in self._warned.items() if now - when < REMINDER_SECONDS}
            self._warned[about] = now
            self.get_logger().warning(text)

    # Services

    def _on_refresh_image(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        if not self._active or self._engine is None:
            return _answer(response, False, "the node is not active")
        if self._camera.last is None:
            topics = " or ".join(camera.topic for camera in self._cameras)
            return _answer(response, False, f"no picture has come yet on {topics}")
        self._engine.refresh()
        return _answer(response, True, "the newest picture is on its way; image_cache tells when it is seen")

    def _on_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        if not self._active or self._engine is None:
            return _answer(response, False, "the node is not active")
        self._engine.reset()
        return _answer(response, True, "a new conversation begins")

    def _on_mute(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        self._muted = request.data
        return _answer(response, True, "muted" if self._muted else "audible")

    def _on_freeze_image(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        if self._engine is None:
            return _answer(response, False, "the node is not configured")
        self._engine.freeze(request.data)
        return _answer(response, True, "frozen" if request.data else "follows the camera")

    # Diagnostics

    def _on_second(self) -> None:
        array = DiagnosticArray()
        array.header.stamp = self.get_clock().now().to_msg()
        state = "talking" if self._active else "inactive" if self._engine else "unconfigured"
        array.status = [self._health.engine(state, self._failure)]
        if self._active and self._engine is not None and self._audio_in is not None:
            for subscription in (self._audio_in, *self._cameras):
                subscription.update()
            sound = self._sound.problem({self._audio_in.topic: self._audio_in.publishers}, needed=True)
            if self._audio_in.publishers > 1:
                sound = f"{self._audio_in.publishers} publishers on {self._audio_in.topic}: their sound is mixed up"
            pictures = self._camera.problem(
                {camera.topic: camera.publishers for camera in self._cameras}, needed=False
            )
            for kind, problem in ("no sound", sound), ("no pictures", pictures):
                if problem:
                    self._warn(problem, kind, REMINDER_SECONDS)
            array.status += [
                self._health.audio(sound, self._engine.dropped),
                self._health.camera(pictures, self._camera),
            ]
            for news in self._health.news():
                self._warn(news, news.split(":")[0])
        for entry in array.status:
            entry.name = f"{self.get_fully_qualified_name()}: {entry.name}"
        self._diagnostics.publish(array)


def _transcript(text: Any, stamp: int) -> Transcript:
    message = Transcript(text=text.text, gate=text.gate)
    message.header.stamp = to_time(stamp)
    if isinstance(text, Piece):
        message.utterance, message.start, message.end = text.utterance, text.time, text.time + 0.08
    else:
        message.utterance, message.start, message.end, message.final = text.number, text.start, text.end, True
    return message


def _image_cache(sight: Sight) -> ImageCacheStatus:
    message = ImageCacheStatus(
        decision=sight.decision,
        reason=sight.reason,
        distance=sight.distance,
        age=sight.age,
        encode_ms=sight.encode_ms,
        refreshes=sight.refreshes,
        has_image=sight.has_image,
    )
    if sight.has_image:
        message.header.stamp = to_time(sight.stamp)
        message.header.frame_id = sight.frame_id
    return message


def _answer(response: Any, success: bool, message: str) -> Any:
    response.success, response.message = success, message
    return response


def main(args: list[str] | None = None) -> int:
    return spin(Talk, args)
