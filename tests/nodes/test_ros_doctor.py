"""The part of `moshivis doctor` that needs ROS: messages to itself, and the cameras that publish."""

from __future__ import annotations

import threading

import pytest
from robot import TIMEOUT, Robot
from sensor_msgs.msg import CompressedImage, Image

from moshivis_ros.nodes import doctor


def test_messages_to_itself_and_cameras(robot: Robot, monkeypatch: pytest.MonkeyPatch) -> None:
    for patience in ("PATIENCE", "FOUND"):  # of a busy machine; each ends when what it waits for is there
        monkeypatch.setattr(doctor, patience, TIMEOUT)
    monkeypatch.setattr(doctor, "LOOK", 6.0)
    over = threading.Event()
    raw = robot.node.create_publisher(Image, "front/image", 5)
    compressed = robot.node.create_publisher(CompressedImage, "back/image/compressed", 5)
    robot.node.create_publisher(Image, "silent/image", 5)

    def publish() -> None:
        late = None
        image = Image(width=160, height=120, step=480, encoding="rgb8", data=bytes(480 * 120))
        while not over.wait(0.05):
            if late is None and raw.get_subscription_count():  # it has looked for cameras once
                late = robot.node.create_publisher(Image, "late/image", 5)
            raw.publish(image)
            compressed.publish(CompressedImage(format="jpeg", data=b"12345"))

    camera = threading.Thread(target=publish)
    camera.start()
    try:
        findings = list(doctor.examine())
    finally:
        over.set()
        camera.join()
    ros, message, large, *cameras = findings
    assert (ros.name, ros.state) == ("ros", "fine") and "ROS_DOMAIN_ID=" in ros.text and "rmw_" in ros.text
    assert (message.name, message.state) == ("message", "fine")
    assert (
        large.name == "large image" and "of 0.9 MB" in large.text
    )  # whether they arrive is the machine's affair
    assert bool(large.remedy) == (large.state == "wrong")
    told = {found.text.split()[0].rstrip(":").removeprefix(robot.namespace): found for found in cameras}
    assert set(told) == {"/front/image", "/back/image/compressed", "/silent/image", "/late/image"}
    assert told["/front/image"].state == "fine" and "Hz, 160x120 rgb8, 0.06 MB" in told["/front/image"].text
    assert "Hz, jpeg, 0.00 MB" in told["/back/image/compressed"].text
    silent = told["/silent/image"]
    assert silent.state == "wrong" and silent.remedy.endswith(f"{robot.namespace}/silent/image")
