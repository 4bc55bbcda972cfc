"""Run a node until it is done or told to stop, and leave nothing behind."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from operator import is_
from typing import Any

import rclpy
from rclpy._rclpy_pybind11 import RCLError
from rclpy.callback_groups import CallbackGroup
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException, ParameterException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node

from moshivis_ros.errors import MoshiVisError
from moshivis_ros.nodes.describe import help_text

BAD_INPUT = (MoshiVisError, InvalidParameterTypeException, InvalidParameterValueException, ParameterException)


PERIOD = 0.25  # seconds after which an executor sees what was made meanwhile, at the latest


class Done(Exception):
    """Raised in a callback when the node has nothing more to do."""


class Part(SingleThreadedExecutor):
    """Runs those callbacks of a node whose group `mine` picks; several such may share a node, each in its own thread.

    A MultiThreadedExecutor does the same for four times the computing: it builds its wait set of all entities anew for
    every message.
    """

    def __init__(self, node: Node, mine: Callable[[CallbackGroup | None], bool]) -> None:
        super().__init__(context=node.context)
        self._node, self._mine = node, mine

    def get_nodes(self) -> list[Node]:
        return [self._node]

    def can_execute(self, entity: Any) -> bool:
        return self._mine(entity.callback_group) and super().can_execute(entity)

    def run(self, done: threading.Event) -> None:
        try:
            while not done.is_set() and self.context.ok():
                self.spin_once(timeout_sec=PERIOD)
        except (ExternalShutdownException, KeyboardInterrupt):
            pass
        except RCLError:
            if self.context.ok():
                raise
            # A signal ended the context in the middle of a call.


@contextmanager
def parts(node: Node) -> Iterator[Part]:
    """An executor for the node. Groups that it wants apart (`apart`: (group, threads), ...) have threads of their own
    meanwhile.
    """
    done = threading.Event()
    apart = getattr(node, "apart", ())
    threads = [
        threading.Thread(target=Part(node, partial(is_, group)).run, args=(done,))
        for group, number in apart
        for _ in range(number)
    ]
    for thread in threads:
        thread.start()
    try:
        main = Part(node, lambda group: all(group is not other for other, _ in apart))
        node.executor = main  # for what is to be done later: tasks, results of actions
        yield main
    finally:
        done.set()
        for thread in threads:
            thread.join()


def spin(make_node: Callable[[], Any], args: list[str] | None = None) -> int:
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
        with parts(node) as executor:
            while rclpy.ok():
                # spin() may sleep through a signal that comes just before it waits
                executor.spin_once(timeout_sec=PERIOD)
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
        else:  # what is half made refers to itself; it must be gone before its context is
            gc.collect()
        rclpy.try_shutdown()
    return code
