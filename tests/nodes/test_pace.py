"""One frame for every 80 ms of the source's own time, over DDS: messages of any length, late ones, simulated clocks.

The clock is the test's own (/clock), and goes on as fast as the robot can follow. What is heard frame by frame, whatever
the messages, is tests/test_pacing.py's.
"""

from __future__ import annotations

import random
from array import array
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from moshivis_ros.msg import Audio, ImageCacheStatus, Transcript
from rcl_interfaces.srv import GetParameters
from rclpy.qos import QoSProfile
from robot import FRAME, Robot
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage
from std_srvs.srv import Trigger
from test_talk import counted, diagnosed

from moshivis_ros.audio import SAMPLE_RATE
from moshivis_ros.audio.files import read
from moshivis_ros.audio.pcm import encode
from moshivis_ros.nodes.messages import to_nanoseconds, to_time

MEDIA = Path(__file__).parents[2] / "media"
SECOND = 1_000_000_000
TICK = 20_000_000
AHEAD = (
    5 * SECOND
)  # by which the time goes before the newest frame at most: more than any delay here, less than max_backlog


class Stage:
    """A talk node whose time is the test's."""

    def __init__(self, robot: Robot) -> None:
        self.robot = robot
        self.now = 100 * SECOND
        self.heard = robot.collect(Audio, "audio_out", 2000)
        self.said = robot.collect(Transcript, "transcript", 2000)
        self._clock = robot.publisher(Clock, "/clock", 10)
        self._sound = robot.node.create_publisher(Audio, "audio_in", QoSProfile(depth=2000))
        self._index = self._begun = self._since = self._looked = 0

    def activate(self) -> None:
        self._index, self._begun = 0, self.now
        self._clock.publish(Clock(clock=to_time(self.now)))
        assert self.robot.change_state("activate"), self.robot.processes[0].log
        self.heard.clear()  # of the last conversation: in this one the time has not gone on yet
        self.said.clear()
        self._since = self.now
        self.robot.until(self._sound.get_subscription_count)

        def answers() -> bool:  # so its threads are awake, and none misses a message that comes in no time
            self.advance(self.now + FRAME)
            return bool(self.heard)

        self.robot.until(answers)

    def jump(self, seconds: int) -> None:
        self.now += seconds * SECOND
        self._since = self.now

    def advance(self, until: int, messages: Sequence[tuple[int, int, np.ndarray]] = ()) -> None:
        """Let the time go on to `until`. `messages`: (arrival, stamp of the first sample, int16 samples)."""
        waiting = deque(messages)
        for tick in range(self.now + TICK, until + 1, TICK):
            self.now = tick
            self._clock.publish(Clock(clock=to_time(tick)))
            # Asked for so that the clock, which the same thread follows, has been seen.
            self.robot.call(GetParameters, "talk/get_parameters", names=["use_sim_time"])
            while waiting and waiting[0][0] <= tick:
                _, stamp, samples = waiting.popleft()
                message = Audio(index=self._index, sample_rate=SAMPLE_RATE, channels=1)
                message.data = array("h", samples.tobytes())
                message.header.stamp = to_time(stamp)
                self._sound.publish(message)
                self._index += 1
            if tick - self._since > AHEAD:
                self.robot.until(lambda tick=tick: self.newest > tick - AHEAD)

    def catch_up(self) -> None:
        """Until all is heard that was sent before now. The time goes on where nothing more comes: a busy machine may have
        made a delay.
        """
        until = self.now - 4 * FRAME

        def caught_up() -> bool:
            idle, self._looked = len(self.heard) == self._looked, len(self.heard)
            caught = until <= self.newest < self.now + AHEAD  # no frame from before a jump back
            if idle and not caught:
                self.advance(self.now + TICK)
            return caught

        self.robot.until(caught_up)

    @property
    def newest(self) -> int:
        return to_nanoseconds(self.heard[-1].header.stamp) if self.heard else self._begun

    @property
    def stamps(self) -> np.ndarray:
        return np.array([to_nanoseconds(message.header.stamp) for message in self.heard])

    @property
    def words(self) -> str:
        return "".join(text.text for text in self.said if not text.final).strip()


@pytest.fixture(scope="module")
def configured(make_robot: Callable[[], Robot]) -> Iterator[Stage]:
    """The miniature, always saying what is most likely, looking at the first scene; configured."""
    robot = make_robot()
    greedy = {"text_temperature": 0.0, "audio_temperature": 0.0}
    renewal = {"renew_after": 12.0, "renew_keep": 5.0}  # in the pause after the answer
    robot.start("talk", use_sim_time=True, refresh_policy="manual", max_backlog=100, **greedy, **renewal)
    assert robot.change_state("configure"), robot.processes[0].log
    made = Stage(robot)
    made.activate()
    seen = robot.collect(ImageCacheStatus, "image_cache")
    scene = cv2.imread(str(MEDIA / "scene_a.jpg"))
    picture = CompressedImage(format="jpeg", data=array("B", cv2.imencode(".jpg", scene)[1].tobytes()))
    camera = robot.publisher(CompressedImage, "image/compressed", 1)

    def look() -> bool:
        camera.publish(picture)
        robot.call(Trigger, "talk/refresh_image")
        made.advance(made.now + 4 * TICK)
        return any(status.has_image for status in seen)

    robot.until(look)
    assert robot.change_state("deactivate")
    yield made


@pytest.fixture
def stage(configured: Stage) -> Iterator[Stage]:
    """Active."""
    configured.activate()
    yield configured
    assert configured.robot.change_state("deactivate")


@pytest.fixture(scope="module")
def question() -> np.ndarray:
    """Ten seconds in which the source becomes known, the question, and time for the answer."""
    silence = np.zeros(10 * SAMPLE_RATE, np.float32)
    return encode(np.concatenate([silence, read(MEDIA / "question.wav"), silence[: 5 * SAMPLE_RATE]]))


def sent(sound: np.ndarray, chunk: float, begin: int, jitter: float) -> list[tuple[int, int, np.ndarray]]:
    """As messages: each comes when it is complete and up to `jitter` seconds later, in order."""
    rng, size, arrival, messages = random.Random(1), round(chunk * SAMPLE_RATE), 0, []
    for start in range(0, sound.size, size):
        stamp = begin + start * SECOND // SAMPLE_RATE
        arrival = max(arrival, stamp + round((chunk + jitter * rng.random()) * SECOND))
        messages.append((arrival, stamp, sound[start : start + size]))
    return messages


@pytest.mark.parametrize(("chunk", "jitter"), [(0.005, 1.0), (0.02, 0.0), (2.0, 1.0)])
def test_the_words_are_the_same_whatever_the_messages(
    stage: Stage, question: np.ndarray, chunk: float, jitter: float
) -> None:
    begin = stage.now
    messages = sent(question, chunk, begin, jitter)
    stage.advance(messages[-1][0] + 3 * SECOND, messages)
    stage.catch_up()
    assert stage.newest >= begin + question.size * SECOND // SAMPLE_RATE - FRAME
    assert stage.words == "It is red." and (np.diff(stage.stamps) > 0).all()


def test_a_context_that_became_long_begins_anew_in_a_pause(stage: Stage) -> None:
    """Nobody speaks: it is renewed when it is 12 s long; no frame is lost by it, and the log and diagnostics tell."""
    before = counted(stage.robot, "engine", "context renewals")

    def renewed() -> bool:
        stage.advance(stage.now + SECOND)
        return counted(stage.robot, "engine", "context renewals") > before

    stage.robot.until(renewed)
    assert (np.diff(stage.stamps) == FRAME).all()
    assert "the context begins anew in this pause" in stage.robot.processes[0].log


def test_a_paused_simulation_pauses_the_conversation(stage: Stage) -> None:
    stage.advance(stage.now + 2 * SECOND)
    stage.catch_up()
    diagnosed(stage.robot, "engine", DiagnosticStatus.OK, "stands still")
    count, reports = len(stage.heard), stage.robot.collect(DiagnosticArray, "/diagnostics")
    told = len(reports)
    stage.robot.until(lambda: len(reports) > told + 1)
    assert len(stage.heard) == count
    stage.advance(stage.now + SECOND)
    stage.catch_up()
    assert set(np.diff(stage.stamps)) == {FRAME}  # it goes on where it was


@pytest.mark.parametrize("jump", [1000, -50])
def test_stamps_begin_anew_where_a_simulated_clock_jumps_to(
    stage: Stage, question: np.ndarray, jump: int
) -> None:
    messages = sent(question[: 2 * SAMPLE_RATE], 0.02, stage.now, 0.0)
    stage.advance(stage.now + 2 * SECOND, messages)
    stage.catch_up()
    stage.jump(jump)
    begin = stage.now
    messages = sent(question[: 3 * SAMPLE_RATE], 0.02, begin, 0.0)
    stage.advance(begin + 3 * SECOND, messages)
    stage.catch_up()
    odd = np.abs(np.diff(stage.stamps) - FRAME)
    assert np.count_nonzero(odd) <= 3  # to the new time, and where the sound begins, before it and after
    after = stage.stamps[odd.argmax() + 1 :]
    assert (
        after.size > 30 and begin - FRAME <= after[0] < begin + 8 * FRAME and (after >= begin - FRAME).all()
    )


def test_slow_motion_is_heard_in_the_simulations_time(stage: Stage, question: np.ndarray) -> None:
    """As many frames as the simulation has 80 ms, however long those take here."""
    before, begin, messages = (
        len(stage.heard),
        stage.now,
        sent(question[: 3 * SAMPLE_RATE], 0.02, stage.now, 0.0),
    )
    for end in range(begin + SECOND, begin + 4 * SECOND, SECOND):
        stage.advance(end, [message for message in messages if end - SECOND < message[0] <= end])
        stage.robot.call(Trigger, "talk/refresh_image")  # time passes here, and not there
    stage.catch_up()
    assert 30 <= len(stage.heard) - before <= (stage.now - begin) // FRAME + 3
    assert np.count_nonzero(np.diff(stage.stamps) - FRAME) <= 2  # where the sound begins
