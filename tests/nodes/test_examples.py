"""The programs of examples/, against a node that stands for talk."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from moshivis_ros.action import Ask, Say
from rclpy.action import ActionServer
from robot import Robot

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize(
    ("answer", "said"), [("I see a red ball.", "Thank you."), ("I see nothing.", "Sorry, I see nothing.")]
)
def test_the_behaviour_tree_asks_and_says(
    robot: Robot, environment: dict[str, str], answer: str, said: str
) -> None:
    served: list[str] = []

    def on_goal(handle: Any) -> Any:
        served.append(handle.request.text)
        handle.succeed()
        asked = isinstance(handle.request, Ask.Goal)
        return Ask.Result(success=True, answer=answer) if asked else Say.Result(success=True, said=said)

    servers = [ActionServer(robot.node, kind, kind.__name__.lower(), on_goal) for kind in (Ask, Say)]
    program = subprocess.Popen(
        [sys.executable, EXAMPLES / "behaviour_tree.py", "--ros-args", "-r", f"__ns:={robot.namespace}"],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    robot.until(lambda: program.poll() is not None)
    output, _ = program.communicate()
    assert program.returncode == 0, output
    assert served == ["What do you see?", said]
    assert "ask what it sees" in output
    for server in servers:
        server.destroy()
