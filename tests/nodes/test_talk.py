"""The talk node as a robot uses it: a process of its own, over DDS."""

from __future__ import annotations

import os
import signal
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from moshivis_ros.msg import Audio, Gate, ImageCacheStatus, Transcript
from rclpy.action import get_action_server_names_and_types_by_node
from rclpy.qos import DurabilityPolicy, QoSProfile, qos_profile_sensor_data
from robot import FRAME, Robot
from safetensors.torch import load_file
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Float32MultiArray, UInt8MultiArray
from std_srvs.srv import SetBool, Trigger

from moshivis_ros.model.adapters import Adapters
from moshivis_ros.model.config import ModelConfig
from moshivis_ros.nodes.messages import to_nanoseconds
from moshivis_ros.nodes.talk_interface import INTERFACES, PARAMETERS

LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


@pytest.fixture(scope="module")
def shared(make_robot: Callable[[], Robot], checkpoint: Path) -> Robot:
    """A robot whose talk node is configured; one for all tests, because loading takes seconds."""
    robot = make_robot()
    robot.start("talk", model=checkpoint, refresh_policy="manual", seed=1, restarts=0)
    assert robot.change_state("configure"), robot.processes[0].log
    return robot


@pytest.fixture
def talking(shared: Robot) -> Iterator[Robot]:
    """The same, active, with somebody speaking."""
    for messages in shared.received.values():
        messages.clear()
    shared.collect(Audio, "audio_out")
    assert shared.change_state("activate"), shared.processes[0].log
    shared.speak()
    yield shared
    shared.hush()
    if shared.state == "active":
        assert shared.change_state("deactivate")


def stamps(messages: list[Any]) -> list[int]:
    return [to_nanoseconds(message.header.stamp) for message in messages]


def newest_status(robot: Robot, topic: str) -> DiagnosticStatus | None:
    name = f"{robot.namespace}/talk: {topic}"
    arrays = robot.collect(DiagnosticArray, "/diagnostics")
    return next(
        (status for array in reversed(arrays) for status in array.status if status.name == name), None
    )


def diagnosed(robot: Robot, topic: str, level: bytes, words: str = "") -> None:
    """Wait until the diagnostics say so."""

    def so() -> bool:
        status = newest_status(robot, topic)
        return status is not None and status.level == level and words in status.message

    robot.until(so)


def counted(robot: Robot, topic: str, name: str) -> int:
    """A counter of the diagnostics; they begin with the first frame."""

    def values() -> list[str]:
        status = newest_status(robot, topic)
        return [pair.value for pair in status.values if pair.key == name] if status else []

    return int(robot.until(values)[0])


def photo(colour: tuple[int, int, int] = (200, 30, 20), **fields: Any) -> Image:
    pixels = np.full((48, 64, 3), colour, np.uint8)
    pixels[10:20, 10:30] = 255 - pixels[10:20, 10:30]
    message = Image(height=48, width=64, step=192, encoding="rgb8", data=array("B", pixels.tobytes()))
    message.header.frame_id = "eye"
    for name, value in fields.items():
        setattr(message, name, value)
    return message


def shown(robot: Robot, message: Image | CompressedImage, qos: Any = 1) -> Any:
    """Publish a picture until it is in the cache, on request: the status that says so."""
    seen = robot.collect(ImageCacheStatus, "image_cache", LATCHED)
    topic = "image" if isinstance(message, Image) else "image/compressed"
    publisher = robot.publisher(type(message), topic, qos)
    sent: set[int] = set()

    def look() -> Any:
        now = robot.node.get_clock().now()
        message.header.stamp = now.to_msg()
        sent.add(now.nanoseconds)
        publisher.publish(message)
        robot.call(Trigger, "talk/refresh_image")
        return next((status for status in seen if to_nanoseconds(status.header.stamp) in sent), None)

    return robot.until(look)


def test_a_conversation(talking: Robot) -> None:
    heard = talking.collect(Audio, "audio_out")
    gates = talking.collect(Gate, "gate")
    said = talking.collect(Transcript, "transcript")
    asked = talking.collect(Audio, "audio_in")
    seen = shown(talking, photo())
    talking.until(lambda: len(heard) > 40 and any(not text.final for text in said))

    assert {(m.sample_rate, m.channels, len(m.data)) for m in heard} == {(24000, 1, 1920)}
    indices = [message.index for message in heard]
    assert indices == list(range(indices[0], indices[0] + len(heard)))
    answered = stamps(heard)
    assert answered == sorted(set(answered))
    talking.until(lambda: stamps(heard)[-1] in stamps(asked))  # once it has made up for what came late
    assert any(any(message.data) for message in heard)

    assert [gate.frame for gate in gates] == list(range(gates[0].frame, gates[0].frame + len(gates)))
    assert set(stamps(gates)) & set(stamps(heard))
    assert all(0 <= gate.normalised <= 1 and len(gate.per_layer) for gate in gates)
    assert max(gate.value for gate in gates) > 0  # it has a picture

    piece = next(text for text in said if not text.final)
    assert piece.text and 0 <= piece.gate <= 1 and round(piece.end - piece.start, 3) == 0.08

    assert seen.has_image and seen.header.frame_id == "eye" and seen.refreshes >= 1 and seen.encode_ms > 0
    statuses, newer = talking.received["image_cache"], photo()
    newer.header.frame_id = "another eye"
    talking.publisher(Image, "image", 1).publish(newer)
    told = len(statuses)
    talking.until(lambda: len(statuses) > told + 1)  # it keeps the picture, whose camera and time it tells
    assert statuses[-1].header == statuses[told - 1].header and statuses[-1].header.frame_id == "eye"
    assert talking.until(lambda: newest_status(talking, "engine")).message.startswith("talking")


def test_whole_utterances_follow_their_pieces(talking: Robot) -> None:
    said = talking.collect(Transcript, "transcript")
    whole = talking.until(lambda: next((text for text in said if text.final), None))
    pieces = [text for text in said if not text.final and text.utterance == whole.utterance]
    assert "".join(piece.text for piece in pieces).strip() == whole.text
    assert whole.start == pieces[0].start and whole.end == pieces[-1].end


def test_compressed_best_effort_pictures(talking: Robot) -> None:
    """A camera that publishes as cameras do."""
    jpeg = cv2.imencode(".jpg", np.full((48, 64, 3), 99, np.uint8))[1]
    message = CompressedImage(format="jpeg", data=array("B", jpeg.tobytes()))
    assert shown(talking, message, qos_profile_sensor_data).has_image


def test_services(talking: Robot) -> None:
    heard = talking.received["audio_out"]
    gates = talking.collect(Gate, "gate")
    talking.until(lambda: any(any(message.data) for message in heard))
    assert talking.call(SetBool, "talk/mute", data=True).success
    talking.until(lambda: not any(heard[-1].data) and not any(heard[-2].data))
    assert talking.call(SetBool, "talk/mute", data=False).success
    talking.until(lambda: any(heard[-1].data))

    talking.until(lambda: gates)
    gates.clear()
    assert talking.call(Trigger, "talk/reset").success
    talking.until(lambda: any(gate.frame == 0 for gate in gates))
    indices = [message.index for message in heard]
    assert indices == list(range(indices[0], indices[0] + len(heard)))  # the numbers of messages go on

    shown(talking, photo())
    seen = talking.collect(ImageCacheStatus, "image_cache", LATCHED)
    assert talking.call(SetBool, "talk/freeze_image", data=True).success
    talking.until(lambda: seen[-1].reason == "frozen")
    assert talking.call(SetBool, "talk/freeze_image", data=False).success
    talking.until(lambda: seen[-1].reason != "frozen")


def test_deactivate_stops_at_once_and_activate_begins_anew(talking: Robot) -> None:
    heard, gates = talking.received["audio_out"], talking.collect(Gate, "gate")
    talking.until(lambda: len(heard) > 5)
    assert talking.change_state("deactivate")
    talking.hush()
    talking.say()  # nobody is listening
    for _ in range(2):  # two diagnostics later everything that was on its way has come
        arrays = talking.collect(DiagnosticArray, "/diagnostics")
        arrived, target = len(heard), len(arrays) + 1
        talking.until(lambda arrays=arrays, target=target: len(arrays) >= target)
    assert len(heard) == arrived
    assert newest_status(talking, "engine").message == "inactive"
    assert not talking.call(Trigger, "talk/reset").success

    last, engine = heard[-1].index, talking.processes[0].children
    gates.clear()
    assert talking.change_state("activate")
    talking.speak()
    talking.until(lambda: heard[-1].index > last + 3)
    assert [m.index for m in heard if m.index > last] == list(range(last + 1, heard[-1].index + 1))
    assert gates[0].frame == 0
    assert talking.processes[0].children == engine  # the model stayed


def test_a_lost_microphone_becomes_silence_and_comes_back(talking: Robot) -> None:
    heard, asked = talking.received["audio_out"], talking.collect(Audio, "audio_in")
    talking.until(lambda: len(heard) > 5)
    talking.hush()
    silent = counted(talking, "audio", "frames of silence (no audio)")
    diagnosed(talking, "audio", DiagnosticStatus.WARN, "audio_in")
    assert counted(talking, "audio", "frames of silence (no audio)") > silent
    steps = np.diff(stamps(heard[-5:]))
    assert (steps == FRAME).all()  # the stamps of silence go on where the sound ended
    asked.clear()
    talking.speak()
    talking.until(lambda: asked and stamps(heard)[-1] in stamps(asked))
    diagnosed(talking, "audio", DiagnosticStatus.OK)


def test_a_camera_that_stops_is_reported(talking: Robot) -> None:
    shown(talking, photo())
    diagnosed(talking, "camera", DiagnosticStatus.WARN, "no pictures")
    heard = talking.received["audio_out"]
    count = len(heard)
    talking.until(lambda: len(heard) > count)  # the conversation goes on
    shown(talking, photo())
    diagnosed(talking, "camera", DiagnosticStatus.OK)


def test_any_rate_and_channel_count_is_heard(talking: Robot) -> None:
    talking.hush()
    heard = talking.received["audio_out"]
    refused = counted(talking, "audio", "audio messages refused")
    for rate, channels in ((48000, 2), (16000, 1), (8000, 1), (44100, 2)):
        heard.clear()
        tone = np.repeat(8000 * np.sin(np.arange(rate // 5) / 10), channels)  # 200 ms: two frames
        sent = to_nanoseconds(talking.say(tone, sample_rate=rate, channels=channels).header.stamp)
        talking.until(lambda sent=sent: any(abs(stamp - sent) < FRAME for stamp in stamps(heard)))
    assert counted(talking, "audio", "audio messages refused") == refused


# What is refused, dropped or counted: the message, and the counter that must grow.
BAD_SOUND: dict[str, tuple[Callable[[Robot], Any], str]] = {
    "nothing": (lambda r: r.say(np.zeros(0)), "audio messages refused"),
    "channels not filled": (lambda r: r.say(np.zeros(1921), channels=2), "audio messages refused"),
    "no channels": (lambda r: r.say(channels=0), "audio messages refused"),
    "rate 0": (lambda r: r.say(sample_rate=0), "audio messages refused"),
    "absurd rate": (lambda r: r.say(sample_rate=4_000_000_000), "audio messages refused"),
    "repeated": (lambda r: (r.say(), r.say(index=r.spoken - 1)), "audio messages repeated"),
    "out of order": (lambda r: (r.say(), r.say(), r.say(index=r.spoken - 2), r.say(index=r.spoken + 1)),
                     "audio messages repeated"),
    "lost": (lambda r: (r.say(), r.say(index=r.spoken + 3)), "audio messages lost"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD_SOUND)
def test_bad_sound_is_counted_and_survived(talking: Robot, what: str) -> None:
    talking.hush()
    send, counter = BAD_SOUND[what]
    before = counted(talking, "audio", counter)
    send(talking)
    talking.until(lambda: counted(talking, "audio", counter) > before)
    talking.speak()
    talking.until(
        lambda: stamps(talking.received["audio_out"])[-1] in stamps(talking.collect(Audio, "audio_in"))
    )


BAD_PICTURES = {
    "data too short": (photo(height=49), "do not match"),
    "rows too short": (photo(step=100), "too short"),
    "unknown encoding": (photo(encoding="hologram"), "hologram"),
    "depth": (photo(encoding="32FC1"), "32FC1"),
    "empty": (photo(height=0, data=array("B")), "empty"),
    "not a jpeg": (CompressedImage(format="jpeg", data=array("B", b"nonsense")), "damaged"),
    "cut short": (
        CompressedImage(format="jpeg", data=array("B", b"\xff\xd8\xff\xe0 and no end")),
        "truncated",
    ),
    "compressed depth": (
        CompressedImage(format="16UC1; compressedDepth png", data=array("B", b"1")),
        "depth",
    ),
}


@pytest.mark.parametrize("what", BAD_PICTURES)
def test_bad_pictures_are_refused_and_survived(talking: Robot, what: str) -> None:
    message, words = BAD_PICTURES[what]
    message.header.frame_id = "bad"
    shown(talking, photo())
    before, logged = counted(talking, "camera", "pictures refused"), len(talking.processes[0].log)
    topic = "image" if isinstance(message, Image) else "image/compressed"
    publisher = talking.publisher(type(message), topic, 1 if topic == "image" else qos_profile_sensor_data)

    def refused() -> bool:
        publisher.publish(message)
        return counted(talking, "camera", "pictures refused") > before

    talking.until(refused)
    talking.until(lambda: words in talking.processes[0].log[logged:])
    seen = talking.received["image_cache"][-1]
    assert seen.has_image and seen.header.frame_id == "eye"  # the good one is still there
    shown(talking, photo())


def test_the_interface_is_what_its_table_says(talking: Robot) -> None:
    node, name, namespace = talking.node, "talk", talking.namespace
    infrastructure = ("/rosout", "/parameter_events", f"{namespace}/talk/transition_event")
    services = ("rcl_interfaces", "lifecycle_msgs", "type_description_interfaces")
    expected = {
        (
            row.kind,
            row.name if row.name[0] == "/" else f"{namespace}/{row.name.replace('~', 'talk')}",
            row.type,
        )
        for row in INTERFACES
    }

    def found() -> set[tuple[str, str, str]]:
        listings = {
            "publishes": node.get_publisher_names_and_types_by_node(name, namespace),
            "subscribes": node.get_subscriber_names_and_types_by_node(name, namespace),
            "serves": node.get_service_names_and_types_by_node(name, namespace),
            "acts": get_action_server_names_and_types_by_node(node, name, namespace),
        }
        return {
            (kind, topic, types[0])
            for kind, listing in listings.items()
            for topic, types in listing
            if topic not in infrastructure and not types[0].startswith(services) and "/_action/" not in topic
        }

    talking.until(lambda: found() >= expected)  # other processes learn of it a moment later
    assert found() == expected


def test_parameters_are_refused_with_a_reason(shared: Robot) -> None:
    assert "clean it up" in shared.set_parameter("device", "cpu")  # while it is configured
    assert shared.change_state("cleanup")
    assert "out of range" in shared.set_parameter("text_temperature", 99.0)
    assert "one of" in shared.set_parameter("refresh_policy", "sometimes")
    assert shared.set_parameter("model", 7)
    assert not shared.set_parameter("seed", 2)
    assert shared.change_state("configure")


def test_what_cannot_work_is_said_when_configuring(shared: Robot, checkpoint: Path) -> None:
    """And the node is there to be configured better."""
    good = {row.name: row.default for row in PARAMETERS} | {"model": str(checkpoint)}
    assert shared.change_state("cleanup")
    for name, value, words in (
        ("model", "/no/such/folder", "/no/such/folder"),
        ("device", "abacus", "abacus"),
        ("audio_in_type", "no_such_msgs/msg/Sound", "no_such_msgs"),
        ("audio_in_type", "std_msgs/msg/String", "no array of samples"),
        ("refresh_settle_distance", 1.0, "settle_distance"),
    ):
        before = len(shared.processes[0].log)
        assert not shared.set_parameter(name, value)
        assert not shared.change_state("configure")
        shared.until(lambda before=before, words=words: words in shared.processes[0].log[before:])
        assert shared.state == "unconfigured"
        assert not shared.processes[0].children
        assert not shared.set_parameter(name, good[name])
    assert shared.change_state("configure")


@pytest.mark.parametrize(
    ("kind", "code", "good", "bad", "counter"),
    [
        (Float32MultiArray, "f", [0.1] * 1920, [float("nan"), float("inf")] * 9, "samples not finite"),
        (UInt8MultiArray, "B", bytes(3840), b"123", "audio messages refused"),
    ],
)
def test_other_types_of_sound(
    robot: Robot, checkpoint: Path, kind: Any, code: str, good: Any, bad: Any, counter: str
) -> None:
    """Types found at run time; what they can do wrong and ours cannot: numbers that are none, and half
    samples.
    """
    robot.start("talk", model=checkpoint, audio_in_type=f"std_msgs/msg/{kind.__name__}", audio_in_rate=24000)
    assert robot.change_state("configure", "activate")
    publisher = robot.publisher(kind, "audio_in")
    for _ in range(3):
        publisher.publish(kind(data=array(code, bad)))
    robot.until(lambda: counted(robot, "audio", counter) > 0)
    robot.until(
        lambda: (
            publisher.publish(kind(data=array(code, good)))
            or newest_status(robot, "audio").message == "hearing"
        )
    )


@pytest.mark.parametrize("active", [True, False])
def test_an_engine_that_crashes_leaves_the_node_alive(shared: Robot, active: bool) -> None:
    if active:
        assert shared.change_state("activate")
    (engine,) = shared.processes[0].children
    os.kill(engine, signal.SIGKILL)
    shared.until(lambda: shared.state == "unconfigured")
    diagnosed(shared, "engine", DiagnosticStatus.ERROR, "signal 9")
    assert shared.change_state("configure", "activate")
    heard = shared.collect(Audio, "audio_out")
    heard.clear()
    shared.until(lambda: heard)
    shared.until(lambda: newest_status(shared, "engine").message.startswith("talking"))
    assert shared.change_state("deactivate")


GPU_OF_ONE_MEGABYTE = """
from types import SimpleNamespace
import torch
torch.cuda.is_available = lambda: True
torch.cuda.get_device_properties = lambda device: SimpleNamespace(is_integrated=0)
torch.cuda.mem_get_info = lambda device=None: (1_000_000, 8_000_000_000)
zeros = torch.zeros
torch.zeros = lambda *size, device=None, **given: zeros(*size, device="cpu", **given)
"""


def test_a_model_too_large_for_the_gpu(robot: Robot, checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(GPU_OF_ONE_MEGABYTE)
    process = robot.start("talk", model=checkpoint, device="cuda", environment={"PYTHONPATH": str(tmp_path)})
    assert not robot.change_state("configure")
    robot.until(lambda: "0.0 of 8.0 GB are free: stop other programs that use the GPU" in process.log)
    assert robot.state == "unconfigured" and not process.children


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_everything(robot: Robot, checkpoint: Path, number: int) -> None:
    process = robot.start("talk", model=checkpoint)
    assert robot.change_state("configure", "activate")
    assert process.children
    assert process.end(number) == 0  # and waits for the engine to be gone
    assert "Traceback" not in process.log


def test_a_killed_node_leaves_no_engine(robot: Robot, checkpoint: Path) -> None:
    process = robot.start("talk", model=checkpoint)
    assert robot.change_state("configure", "activate")
    assert process.children
    process.end(signal.SIGKILL)


def test_interrupted_while_loading(robot: Robot, checkpoint: Path) -> None:
    process = robot.start("talk", model=checkpoint)
    client = robot.node.create_client(ChangeState, "talk/change_state")
    robot.until(client.service_is_ready)
    client.call_async(ChangeState.Request(transition=Transition(id=Transition.TRANSITION_CONFIGURE)))
    robot.until(lambda: process.children)
    process.end(signal.SIGINT)


@pytest.mark.parametrize(
    ("parameter", "value", "words"),
    [
        ("max_backlog", 0, "max_backlog"),
        ("image_transport", "pigeon", "both, raw, compressed"),
        ("quantize", "int2", 'must be one of auto, none, int8, int4'),
        ("kv_cache", "int4", 'must be one of auto, none, int8'),
        ("seed", "x", "seed"),
    ],
)
def test_a_bad_parameter_at_the_start(robot: Robot, parameter: str, value: Any, words: str) -> None:
    process = robot.start("talk", **{parameter: value})
    assert process.wait() == 2
    assert words in process.log and "Traceback" not in process.log


def test_smaller_weights_and_window(robot: Robot, checkpoint: Path) -> None:
    process = robot.start("talk", model=checkpoint, quantize="int8", kv_cache="int8")
    spoken = robot.collect(Audio, "audio_out")
    assert robot.change_state("configure", "activate")
    robot.until(lambda: spoken)
    assert "with int8 weights" in process.log


def test_trained_adapters_are_put_into_the_model(robot: Robot, checkpoint: Path, tmp_path: Path) -> None:
    """Such as leave of the gates what their offset of -4 makes of nothing, whatever is seen and heard."""
    weights = load_file(checkpoint / ModelConfig.load(checkpoint).model)
    last = {name: torch.zeros_like(t) for name, t in weights.items() if name.endswith(".gate.alpha.2.weight")}
    Adapters(last).save(tmp_path)
    process = robot.start("talk", model=checkpoint, adapters=tmp_path, refresh_policy="manual")
    gates = robot.collect(Gate, "gate")
    assert robot.change_state("configure", "activate"), process.log
    robot.speak()
    shown(robot, photo())
    told = len(gates)
    robot.until(lambda: len(gates) > told + 5)
    shut = 1 / (1 + np.exp(4.0))
    assert [list(gate.per_layer) for gate in gates[-3:]] == 3 * [[pytest.approx(shut, abs=1e-4)] * len(last)]


def test_image_transport_takes_one_topic_only(robot: Robot, checkpoint: Path) -> None:
    robot.start("talk", model=checkpoint, image_transport="compressed")
    assert robot.change_state("configure", "activate")
    compressed = robot.node.create_publisher(CompressedImage, "image/compressed", 1)
    robot.until(compressed.get_subscription_count)
    assert not robot.node.count_subscribers("image")


def test_the_voice_in_another_type_of_message(robot: Robot, checkpoint: Path) -> None:
    robot.start("talk", model=checkpoint, audio_out_type="std_msgs/msg/Float32MultiArray")
    voice = robot.collect(Float32MultiArray, "audio_out")
    assert robot.change_state("configure", "activate")
    robot.until(lambda: any(any(message.data) for message in voice))
    assert {len(message.data) for message in voice} == {1920}
    assert max(abs(sample) for message in voice for sample in message.data) <= 1
