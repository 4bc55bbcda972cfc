"""A conversation about what the camera sees: sound and pictures in, speech and its transcript out.

A managed (lifecycle) node: configure loads the model, activate starts talking, deactivate stops at once and
keeps the model, cleanup frees its memory. The conversation runs in a process of its own (engine/); here messages are
copied in and out. Sound, pictures, transitions and everything else have threads of their own (`apart`): neither a slow
picture nor the loading of a model keeps the others waiting.
"""

from __future__ import annotations

import threading
import time
import traceback
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy._rclpy_pybind11 import RCLError
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup, ReentrantCallbackGroup
from rclpy.lifecycle import LifecycleNodeMixin, LifecycleState, TransitionCallbackReturn
from rclpy.node import Node
from rclpy.parameter import Parameter as RosParameter
from std_srvs.srv import SetBool, Trigger

from moshivis_ros.engine.engine import Engine
from moshivis_ros.engine.events import Asleep, Ended, Event, Loaded, Loading, Progress, Spoken, Trouble
from moshivis_ros.errors import MoshiVisError
from moshivis_ros.nodes.bond import Bond
from moshivis_ros.nodes.diagnostics import Diagnostics
from moshivis_ros.nodes.health import Health
from moshivis_ros.nodes.interface import declare, values
from moshivis_ros.nodes.messages import AudioReader
from moshivis_ros.nodes.spin import spin
from moshivis_ros.nodes.switches import Switches
from moshivis_ros.nodes.talk_goals import Goals
from moshivis_ros.nodes.talk_inputs import Inputs
from moshivis_ros.nodes.talk_interface import INTERFACES, PARAMETERS
from moshivis_ros.nodes.talk_outputs import Outputs
from moshivis_ros.nodes.talk_settings import TUNED, LiveParameters, settings
from moshivis_ros.options import Options

__all__ = ["INTERFACES", "PARAMETERS", "Talk", "main"]

SUCCESS = TransitionCallbackReturn.SUCCESS
FAILURE, ERROR = TransitionCallbackReturn.FAILURE, TransitionCallbackReturn.ERROR
PROGRESS_SECONDS = 5.0  # between two lines in the log while the model is loading
WARNING_SECONDS = 5.0  # between two warnings of one kind
REMINDER_SECONDS = 60.0  # between two about the same standing problem


class Talk(LifecycleNodeMixin, Node):
    """The lifecycle node around one Engine."""

    def __init__(self, **kwargs: Any) -> None:
        Node.__init__(self, "talk", **kwargs)
        # Reentrant: its state can be asked for while it is loading.
        transitions = ReentrantCallbackGroup()
        LifecycleNodeMixin.__init__(self, callback_group=transitions)
        declare(self, PARAMETERS, read_only=False)
        self._live = LiveParameters(self, self._on_changed, lambda: self._loading is not None)
        self._goals = Goals(self, self._talking_engine, lambda: self._asleep)
        self._simulated = bool(self.get_parameter("use_sim_time").value)
        self._engine: Engine | None = None
        self._outputs: Outputs | None = None
        self._bond: Bond | None = None
        self._loading: str | None = None  # how far it is
        self._elapsed = 0.0  # seconds of loading
        self._cancelled = threading.Event()
        self._failure: str | None = None
        self._active = self._asleep = False
        self._health = Health()
        self._warned: dict[str, float] = {}
        self._inputs: Inputs | None = None
        self._hearing, self._seeing = MutuallyExclusiveCallbackGroup(), MutuallyExclusiveCallbackGroup()
        self.apart = ((self._hearing, 1), (self._seeing, 1), (transitions, 2))
        self._diagnostics = Diagnostics(self, self._on_second)
        for name, call in (("refresh_image", self._on_refresh_image), ("reset", self._on_reset), ("cancel_loading", self._on_cancel_loading)):
            self.create_service(Trigger, f"~/{name}", call)
        for name, answer in (("mute", self._on_mute), ("sleep", self._on_sleep), ("freeze_image", self._on_freeze_image)):
            self.create_service(SetBool, f"~/{name}", answer)
        self._switches = Switches(self, lambda: {"muted": self.get_parameter("mute").value, "asleep": self._asleep})

    # Lifecycle

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Loads the model, which may take minutes; says every few seconds how far it is."""
        self._failure = None
        self._cancelled.clear()
        self._loading = "loading the model"  # from here on parameters are not changed any more
        try:
            given = settings(values(self, PARAMETERS), self._simulated)
            self._reader = AudioReader.of(self, "audio_in")
            self._outputs = Outputs(self, self.get_parameter("audio_out_type").value)
            self._outputs.muted = self.get_parameter("mute").value
            if self.get_parameter("bond").value:
                self._bond = Bond(self)
            self._loading = f"loading {given.model}"
            self._engine = Engine(given, self._on_event)
            self._wait_until_loaded(self._engine)
        except MoshiVisError as error:
            self._fail(str(error))
            return FAILURE
        except Exception:  # rclpy would swallow it without a word
            self._fail(traceback.format_exc())
            return ERROR
        finally:
            self._loading = None
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        assert self._engine is not None
        if not self._engine.alive:
            return ERROR
        result = super().on_activate(state)
        self._active, self._asleep = True, False
        self._health.begin()
        self._engine.start(self._now)
        groups = self._hearing, self._seeing
        self._inputs = Inputs(self, self._engine, self._reader, *groups, self._simulated)
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._stop()
        result = super().on_deactivate(state)
        return result if self._engine is not None and self._engine.alive else ERROR

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
        self._cancelled.set()
        self._stop()
        engine, outputs, bond, self._engine, self._outputs, self._bond = (
            self._engine, self._outputs, self._bond, None, None, None,
        )  # fmt: skip
        self._live.image_sizes = None
        for part in (engine, bond, outputs):
            if part is not None and (part is engine or self.context.ok()):
                part.close()

    def _stop(self) -> None:
        if self.context.ok():
            self._goals.end("the node was deactivated")
        if self._engine is not None:
            self._engine.stop()
        if self._active and self._outputs is not None and self.context.ok():
            self._outputs.end()
        self._active = self._asleep = False
        if self._inputs is not None:
            self._inputs.close()
            self._inputs = None

    def _wait_until_loaded(self, engine: Engine) -> None:
        self.get_logger().info(self._progress(0.0, engine))
        start = told = time.monotonic()
        while not engine.wait_until_loaded(0.1):
            now = time.monotonic()
            if not self.context.ok() or self._cancelled.is_set():
                raise MoshiVisError(f"interrupted after {now - start:.0f} s of loading")
            self._elapsed = now - start
            if now - told > PROGRESS_SECONDS:
                told = now
                self.get_logger().info(self._progress(now - start, engine))

    def _progress(self, seconds: float, engine: Engine) -> str:
        return f"{self._loading}: {seconds:.0f} s, {engine.resident_mb:.0f} MB in memory"

    def _fail(self, reason: str) -> None:
        self._failure = reason
        self.get_logger().error(reason)
        self.close()

    def _on_engine_ended(self) -> None:
        if self._active:
            self.trigger_deactivate()  # ends in error processing, and that in unconfigured
        elif self._engine is not None:
            self.trigger_cleanup()

    # Out: called by the engine's thread

    def _talking_engine(self) -> Engine | None:
        """None also while one that died is being started again: what it is told then does not reach it."""
        return self._engine if self._active and self._failure is None else None

    def _on_event(self, event: Event) -> None:
        try:
            self._take(event)
        except RCLError:
            if self.context.ok():
                raise
            # A signal ended the context in the middle of a call.

    def _take(self, event: Event) -> None:
        if not self.context.ok():
            return
        if isinstance(event, Spoken):
            self._on_spoken(event)
        elif isinstance(event, Loading):
            self._loading = f"loading {self.get_parameter('model').value}: {event.text}"
        elif isinstance(event, Progress):
            self._goals.take(event)
        elif isinstance(event, Asleep):
            if self._outputs is not None:
                self._outputs.end()
        elif isinstance(event, Trouble):
            self._warn(event.text)
        elif isinstance(event, Loaded):
            self._on_loaded(event)
        elif isinstance(event, Ended):
            self._failure = f"{event.text}; it is being started again" if event.again else event.text
            self.get_logger().error(self._failure)
            self._goals.end("the engine ended")
            if self._active and self._outputs is not None:
                self._outputs.end()
            if not event.again:  # not here: closing the engine waits for the thread that tells of its end
                threading.Thread(target=self._on_engine_ended).start()

    def _on_spoken(self, spoken: Spoken) -> None:
        if spoken.renewals > self._health.renewals:
            self.get_logger().info("the context begins anew in this pause, with its end; the conversation goes on")
        self._health.add(spoken)
        if self._outputs is not None:
            self._outputs.publish(spoken, self._inputs.frame_id if self._inputs else "")

    def _on_loaded(self, loaded: Loaded) -> None:
        again, self._failure = self._failure is not None, None
        self._live.image_sizes = loaded.image_sizes
        model = "a RANDOM model: it makes sounds, not sense" if loaded.random else "the model"
        weights = f" with {loaded.quantized} weights" if loaded.quantized else ""
        self.get_logger().info(f"loaded {model}{weights} on {loaded.device} in {loaded.seconds:.1f} s")
        if loaded.reason:
            self.get_logger().info(loaded.reason)
        if again and self._active and self._engine is not None:
            self._engine.start(self._now)
            self._engine.sleep(self._asleep, self._now)
        if again:
            return
        if loaded.realtime_priority < (wanted := self.get_parameter("realtime_priority").value):
            self.get_logger().info(
                f"realtime_priority {wanted}: not allowed here, so frames may wait for other programs (allow it "
                "by a limit for rtprio in /etc/security/limits.conf)"
            )
        if loaded.about:
            self.get_logger().info(f"it can talk about {loaded.about}")

    def _warn(self, text: str, about: str = "", seconds: float = WARNING_SECONDS) -> None:
        """Log a warning, unless one `about` the same (by default: with the same text) came a moment ago."""
        now, about = time.monotonic(), about or text
        if now - self._warned.get(about, -seconds) >= seconds:
            self._warned = {key: when for key, when in self._warned.items() if now - when < REMINDER_SECONDS}
            self._warned[about] = now
            self.get_logger().warning(text)

    # Changes while it talks

    def _on_changed(self, names: set[str]) -> None:
        engine, outputs = self._engine, self._outputs
        if outputs is not None:
            outputs.muted = self.get_parameter("mute").value
        if engine is not None and names & TUNED:
            engine.tune(Options.of(values(self, PARAMETERS)), "seed" in names)

    @property
    def _now(self) -> int:
        return int(self.get_clock().now().nanoseconds)

    # Services

    def _on_refresh_image(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        if not self._active or self._engine is None:
            return _answer(response, False, "the node is not active")
        if (inputs := self._inputs) is None or inputs.camera.last is None:
            topics = f" on {inputs.image_topics}" if inputs else ""
            return _answer(response, False, f"no picture has come yet{topics}")
        self._engine.refresh()
        return _answer(response, True, "the newest picture is on its way; image_cache tells when it is seen")

    def _on_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        if not self._active or self._engine is None:
            return _answer(response, False, "the node is not active")
        self._engine.reset()
        return _answer(response, True, "a new conversation begins")

    def _on_cancel_loading(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        if self._loading is None:
            return _answer(response, False, "no model is being loaded")
        self._cancelled.set()
        return _answer(response, True, "configure ends now, without a model")

    def _on_mute(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        self.set_parameters([RosParameter("mute", value=request.data)])
        self._on_changed({"mute"})  # before it is answered
        return _answer(response, True, "muted" if request.data else "audible")

    def _on_sleep(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        if not self._active or self._engine is None:
            return _answer(response, False, "the node is not active")
        if request.data:
            self._goals.end("the node fell asleep")
        self._asleep = request.data
        self._engine.sleep(request.data, self._now)
        return _answer(response, True, "asleep: it makes no step, and hears nothing" if request.data else "awake")

    def _on_freeze_image(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        if self._engine is None:
            return _answer(response, False, "the node is not configured")
        self._engine.freeze(request.data)
        return _answer(response, True, "frozen" if request.data else "follows the camera")

    def _on_second(self) -> list[DiagnosticStatus]:
        engine, inputs = self._engine, self._inputs
        if self._loading is not None and engine is not None:
            return [self._health.engine(self._progress(self._elapsed, engine), None)]
        state = "asleep" if self._asleep else "talking" if self._active else "inactive" if engine else "unconfigured"
        stopped = self._health.clock_stands(self.get_clock().now().nanoseconds) and self._simulated
        if stopped and self._active:
            state = f"{state}, but waiting: the simulated time of /clock stands still"
        report = [self._health.engine(state, self._failure)]
        if inputs is not None and not stopped and engine is not None:
            sound, pictures = inputs.problems()
            for kind, problem in ("no sound", sound), ("no pictures", pictures):
                if problem:
                    self._warn(problem, kind, REMINDER_SECONDS)
            report += [
                self._health.audio(sound, engine.dropped),
                self._health.camera(pictures, inputs.camera),
            ]
            for news in self._health.news():
                self._warn(news, news.split(":")[0])
        return report


def _answer(response: Any, success: bool, message: str) -> Any:
    response.success, response.message = success, message
    return response


def main(args: list[str] | None = None) -> int:
    return spin(Talk, args)
