"""Run a node until it is done or told to stop, and leave nothing behind."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import rclpy
from rclpy._rclpy_pybind11 import RCLError
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException, ParameterException
from rclpy.executors import ExternalShutdownException, MultiThreadedExecutor, SingleThreadedExecutor

from moshivis_ros.errors import MoshiVisError
from moshivis_ros.nodes.describe import help_text

BAD_INPUT = (MoshiVisError, InvalidParameterTypeException, InvalidParameterValueException, ParameterException)


class Done(Exception):
    """Raised in a callback when the node has nothing more to do."""


def spin(make_node: Callable[[], Any], args: list[str] | None = None, threads: int = 1) -> int:
    """The exit code: 0 after Ctrl-C, SIGTERM or Done, 1 if its close() raised a MoshiVisError, 2 if the node could not be
    made or its input was bad: starting it again would not help.

    With --help it prints what the tables of the node's module say, and starts nothing.
    """
    if {"-h", "--help"} & set(sys.argv[1:] if args is None else args):
        print(help_text(sys.modules[make_node.__module__]), end="")
        return 0
    rclpy.init(args=args)
    node, code = None, 0
    try:
        node = make_node()
        executor = MultiThreadedExecutor(threads) if threads > 1 else SingleThreadedExecutor()
        executor.add_node(node)
        while rclpy.ok():
            executor.spin_once(
                timeout_sec=0.5
            )  # spin() may sleep through a signal that comes just before it waits
    except (KeyboardInterrupt, ExternalShutdownException, Done):
        pass
    except BAD_INPUT as error:
        print(f"{make_node.__name__.lower()}: {error}", file=sys.stderr)
        code = 2
    except RCLError:
        if rclpy.ok():
            raise
        # A signal ended the context in the middle of a call.
    finally:
        if node is not None:
            try:
                node.close()
            except MoshiVisError as error:
                print(f"{make_node.__name__.lower()}: {error}", file=sys.stderr)
                code = 1
            node.destroy_node()
        rclpy.try_shutdown()
    return code
