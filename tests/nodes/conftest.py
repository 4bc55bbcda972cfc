"""Fixtures of the tests of nodes, which need ROS 2 and the built messages."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from robot import Robot

if not (importlib.util.find_spec("rclpy") and importlib.util.find_spec("moshivis_ros.msg")):
    collect_ignore_glob = ["test_*.py"]  # no ROS, or not built


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """Of all nodes: a domain of their own, on this machine only."""
    os.environ["ROS_DOMAIN_ID"] = str(os.getpid() % 100 + 1)
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    plain = {"RCUTILS_COLORIZED_OUTPUT": "0", "PYTHONUNBUFFERED": "1"}
    return {"OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1", **plain}


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from moshivis_ros.model.init import init_checkpoint

    folder = tmp_path_factory.mktemp("checkpoint")
    init_checkpoint(folder, size="tiny", seed=1)
    return folder


@pytest.fixture(scope="session")
def ros(environment: dict[str, str]) -> Iterator[None]:
    import rclpy

    rclpy.init(args=[])
    yield
    rclpy.shutdown()


@pytest.fixture(scope="module")
def make_robot(
    ros: None, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[], Robot]]:
    from robot import Robot

    robots: list[Robot] = []

    def make() -> Robot:
        robots.append(Robot(f"robot{id(robots)}_{len(robots)}", environment, tmp_path_factory.mktemp("logs")))
        return robots[-1]

    yield make
    for robot in robots:
        robot.close()


@pytest.fixture
def robot(make_robot: Callable[[], Robot]) -> Iterator[Robot]:
    """A robot without nodes."""
    made = make_robot()
    yield made
    for process in made.processes:
        if process.popen.poll() is None:
            process.end()
