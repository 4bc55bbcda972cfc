"""examples/two_machines as `ros2 launch` runs it, where launch is installed. Both machines are this one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from moshivis_ros.msg import Audio, Speaking
from robot import TIMEOUT, Robot
from test_launch import RUN

sys.path.append(str(Path(__file__).parents[1]))
from hearing import whisper  # noqa: E402

pytestmark = pytest.mark.launch
EXAMPLES = Path(__file__).parents[2] / "examples" / "two_machines"


def test_what_is_heard_here_is_answered_there_and_played_here(
    robot: Robot, environment: dict[str, str], pulse: dict[str, str], checkpoint: Path, tmp_path: Path
) -> None:
    here = {"device": "pulse"}
    there = {"model": checkpoint, "whisper": whisper()}
    played, heard = robot.collect(Audio, "audio_played"), robot.collect(Audio, "audio_in")
    told = robot.collect(Speaking, "speaking")
    launched = []
    for name, arguments in (("robot", here), ("gpu", there)):
        given = [f"{key}:={value}" for key, value in {"namespace": robot.namespace, **arguments}.items()]
        with (tmp_path / f"{name}.log").open("wb") as log:
            command = [sys.executable, "-c", RUN, EXAMPLES / f"{name}.launch.py", *given]
            launched.append(
                subprocess.Popen(command, env={**os.environ, **environment, **pulse}, stdout=log, stderr=log, start_new_session=True)
            )
    try:
        robot.until(lambda: heard and told)
        robot.until(lambda: any(np.any(message.data) for message in played))  # the voice of the other machine
    finally:
        for process in launched:
            process.send_signal(signal.SIGINT)
            process.wait(TIMEOUT)
