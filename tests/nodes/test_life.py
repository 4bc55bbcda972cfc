"""The life of the talk node: while it loads, when its engine dies, when it is stopped in the middle of a sentence."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from moshivis_ros.action import Say
from moshivis_ros.msg import Audio, Gate, ImageCacheStatus, Transcript
from rclpy.action import ActionClient
from rclpy.parameter import Parameter
from robot import Robot
from sensor_msgs.msg import Image
from std_srvs.srv import SetBool, Trigger
from test_talk import LATCHED, diagnosed, newest_status, photo

from moshivis_ros.nodes.spin import parts
from moshivis_ros.nodes.talk import Talk
from moshivis_ros.nodes.talk_inputs import Inputs

SLOW_LOADING = """
import os, sys, time
if "moshivis_ros.engine.process" in " ".join(sys.orig_argv):
    while not os.path.exists({gate!r}):
        time.sleep(0.01)
"""


@pytest.fixture
def loading(robot: Robot, checkpoint: Path, tmp_path: Path) -> Iterator[tuple[Robot, Any, Path]]:
    """A robot that is being configured, and goes on when the file exists: (robot, the answer to come, file)."""
    gate = tmp_path / "go on"
    (tmp_path / "sitecustomize.py").write_text(SLOW_LOADING.format(gate=str(gate)))
    robot.start("talk", model=checkpoint, environment={"PYTHONPATH": str(tmp_path)})
    yield robot, configure(robot), gate
    gate.touch()


def configure(robot: Robot) -> Any:
    client = robot.node.create_client(ChangeState, "talk/change_state")
    robot.until(client.service_is_ready)
    request = ChangeState.Request(transition=Transition(id=Transition.TRANSITION_CONFIGURE))
    answer = client.call_async(request)
    robot.until(lambda: robot.processes[0].children)
    return answer


def test_everything_answers_while_the_model_loads(loading: tuple[Robot, Any, Path]) -> None:
    robot, answer, gate = loading
    assert robot.state == "configuring"
    assert not robot.change_state("activate") and not robot.change_state("configure")  # refused at once
    assert "clean it up" in robot.set_parameter("device", "cpu")
    assert not robot.call(Trigger, "talk/reset").success
    assert robot.call(SetBool, "talk/mute", data=True).success
    diagnosed(robot, "engine", DiagnosticStatus.OK, "loading")
    assert not answer.done()  # it returns only when loaded
    gate.touch()
    robot.until(answer.done)
    assert answer.result().success and robot.state == "inactive"
    assert not robot.call(Trigger, "talk/cancel_loading").success


def test_loading_can_be_cancelled(loading: tuple[Robot, Any, Path]) -> None:
    robot, answer, gate = loading
    assert robot.call(Trigger, "talk/cancel_loading").success
    robot.until(answer.done)
    assert not answer.result().success and robot.state == "unconfigured"
    assert not robot.processes[0].children
    gate.touch()
    assert robot.change_state("configure")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_loading(loading: tuple[Robot, Any, Path], number: int) -> None:
    robot, _, _ = loading
    process = robot.processes[0]
    assert process.end(number) == 0
    assert "Traceback" not in process.log


def test_an_engine_that_dies_is_started_again_and_has_its_picture(robot: Robot, checkpoint: Path) -> None:
    robot.start("talk", model=checkpoint, refresh_policy="manual", restarts=2)
    assert robot.change_state("configure", "activate")
    heard = robot.collect(Audio, "audio_out")
    gates = robot.collect(Gate, "gate")
    statuses = robot.collect(ImageCacheStatus, "image_cache", LATCHED)
    camera = robot.publisher(Image, "image", 1)
    say = ActionClient(robot.node, Say, f"{robot.namespace}/say")
    robot.until(say.server_is_ready)

    def requested() -> bool:
        camera.publish(photo())
        return robot.call(Trigger, "talk/refresh_image").success

    robot.until(requested)  # once only: one picture will be seen
    seen = robot.until(lambda: next((status for status in statuses if status.has_image), None))
    for deaths in (1, 2):
        robot.until(lambda: gates)
        (engine,) = robot.processes[0].children
        os.kill(engine, signal.SIGKILL)
        robot.until(lambda deaths=deaths: robot.processes[0].log.count("it is being started again") == deaths)
        assert robot.state == "active"
        wanted = say.send_goal_async(Say.Goal(text="Hello."))
        robot.until(wanted.done)
        assert not wanted.result().accepted  # it would be lost
        for messages in (heard, gates, statuses):
            messages.clear()
        robot.until(lambda: heard and gates and statuses)
        assert gates[0].frame == 0  # a new conversation
        assert statuses[0].has_image and statuses[0].refreshes == 1
        assert statuses[0].header == seen.header  # about the same picture
    (engine,) = robot.processes[0].children
    os.kill(engine, signal.SIGKILL)  # once too often
    robot.until(lambda: robot.state == "unconfigured")
    diagnosed(robot, "engine", DiagnosticStatus.ERROR, "signal 9")
    assert robot.processes[0].log.count("[ERROR]") == 3


def test_a_sentence_that_is_cut_off_is_told_as_far_as_it_went(robot: Robot, checkpoint: Path) -> None:
    """By reset, deactivate and the end of the engine; and the loudspeaker is told to forget the rest."""
    robot.start("talk", model=checkpoint, refresh_policy="manual", seed=1)
    assert robot.change_state("configure", "activate")
    said = robot.collect(Transcript, "transcript", 1000)
    heard = robot.collect(Audio, "audio_out", 1000)

    def in_the_middle() -> str:
        """The words of an utterance that is being said."""
        robot.until(lambda: said and not said[-1].final)
        return said[-1].text

    def cut(stop: Callable[[], Any]) -> None:
        in_the_middle()
        told = len(said)
        stop()
        final = robot.until(lambda: next((text for text in said[told - 1 :] if text.final), None))
        pieces = [text.text for text in said if not text.final and text.utterance == final.utterance]
        assert "".join(pieces).strip().endswith(final.text)
        robot.until(lambda: heard[-1].flush or any(message.flush for message in heard[-50:]))
        said.clear()

    cut(lambda: robot.call(Trigger, "talk/reset"))
    (engine,) = robot.processes[0].children
    cut(lambda: os.kill(engine, signal.SIGKILL))
    cut(lambda: robot.change_state("deactivate"))
    indices = [message.index for message in heard]
    assert indices == list(range(indices[0], indices[0] + len(heard)))
    assert heard[-1].flush and not any(heard[-1].data)  # the last word: nothing more is to be played


def test_mute_empties_the_loudspeaker(robot: Robot, checkpoint: Path) -> None:
    robot.start("talk", model=checkpoint)
    assert robot.change_state("configure", "activate")
    heard = robot.collect(Audio, "audio_out", 1000)
    robot.until(lambda: any(any(message.data) for message in heard))
    assert robot.call(SetBool, "talk/mute", data=True).success
    first = robot.until(lambda: next((m for m in heard[1:] if m.flush), None))
    assert not any(first.data)
    robot.until(lambda: heard[-1].index > first.index + 3)
    assert not any(message.flush for message in heard if message.index > first.index)  # once


def test_no_sound_is_lost_to_slow_pictures(
    robot: Robot, checkpoint: Path, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A picture takes half a second to be looked at; meanwhile sound comes every 20 ms."""
    slow = threading.Event()

    def show(self: Inputs, message: Any, **fields: Any) -> None:
        slow.set()
        time.sleep(0.5)

    monkeypatch.setattr(Inputs, "_show", show)
    heard: list[int] = []
    monkeypatch.setattr(Inputs, "_on_audio", lambda self, message: heard.append(message.index))
    parameters = [Parameter("model", value=str(checkpoint)), Parameter("refresh_policy", value="manual")]
    node = Talk(namespace=robot.namespace, parameter_overrides=parameters)
    done = threading.Event()

    def spin() -> None:
        with parts(node) as executor:
            executor.run(done)

    spinning = threading.Thread(target=spin)
    spinning.start()
    try:
        assert robot.change_state("configure", "activate")
        sound, camera = robot.publisher(Audio, "audio_in", 1000), robot.publisher(type(photo()), "image")
        camera.publish(photo())
        robot.until(slow.is_set)
        for index in range(100):  # far more than wait in a usual queue, all while the picture is being looked at
            camera.publish(photo())
            sound.publish(Audio(index=index, sample_rate=24000, channels=1, data=[0] * 480))
        robot.until(lambda: heard and heard[-1] == 99)
        assert heard == list(range(100))
        assert robot.change_state("deactivate", "cleanup")
    finally:
        done.set()
        spinning.join()
        node.close()
        node.destroy_node()


def test_the_frame_of_the_sound_is_that_of_the_voice(robot: Robot, checkpoint: Path) -> None:
    robot.start("talk", model=checkpoint)
    assert robot.change_state("configure", "activate")
    heard, gates = robot.collect(Audio, "audio_out"), robot.collect(Gate, "gate")
    ear = robot.publisher(Audio, "audio_in")

    def answered() -> bool:
        message = Audio(index=robot.spoken, sample_rate=24000, channels=1, data=[0] * 1920)
        message.header.frame_id = "ear"
        message.header.stamp = robot.node.get_clock().now().to_msg()
        robot.spoken += 1
        ear.publish(message)
        return bool(heard and gates) and heard[-1].header.frame_id == gates[-1].header.frame_id == "ear"

    robot.until(answered)
    assert robot.until(lambda: newest_status(robot, "engine")).hardware_id
