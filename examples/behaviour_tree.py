"""A behaviour tree that asks the robot what it sees, and says something that depends on the answer.

    pip install py-trees
    ros2 launch moshivis_ros talk.launch.py image:=/camera/image_raw       # in another terminal
    python3 examples/behaviour_tree.py

Ask is spoken into the model's ear, Say in its own voice (docs/colleague.md). The sentences are such that the miniature can say them.
"""

from __future__ import annotations

import sys
from typing import Any

import py_trees
import rclpy
from moshivis_ros.action import Ask, Say
from py_trees.common import Access, Status
from rclpy.action import ActionClient
from rclpy.node import Node

TICK_SECONDS = 0.1


class Goal(py_trees.behaviour.Behaviour):
    """Sends a goal, runs until its result has come, and cancels it when the tree turns to something else."""

    def __init__(self, name: str, client: ActionClient, goal: Any) -> None:
        super().__init__(name)
        self._client, self._goal = client, goal
        self._board = self.attach_blackboard_client(name)
        self._board.register_key("answer", Access.WRITE)

    def initialise(self) -> None:
        self._handle = self._result = None
        self._sent: Any = self._client.send_goal_async(self._goal) if self._client.server_is_ready() else None

    def update(self) -> Status:
        if self._sent is None:  # wait for the node
            self.initialise()
            return Status.RUNNING
        if self._handle is None:
            if not self._sent.done():
                return Status.RUNNING
            self._handle = self._sent.result()
            if not self._handle.accepted:
                self.feedback_message = "talk is not active"
                return Status.FAILURE
            self._result = self._handle.get_result_async()
        if not self._result.done():
            return Status.RUNNING
        result = self._result.result().result
        self.feedback_message = result.reason or getattr(result, "answer", "said")
        if isinstance(result, Ask.Result):
            self._board.answer = result.answer
        return Status.SUCCESS if result.success else Status.FAILURE

    def terminate(self, new_status: Status) -> None:
        if new_status == Status.INVALID and self._handle is not None:
            self._handle.cancel_goal_async()


class Seen(py_trees.behaviour.Behaviour):
    """Was there something in the answer?"""

    def __init__(self) -> None:
        super().__init__("something there?")
        self._board = self.attach_blackboard_client(self.name)
        self._board.register_key("answer", Access.READ)

    def update(self) -> Status:
        return Status.FAILURE if "nothing" in self._board.answer else Status.SUCCESS


def tree(node: Node) -> py_trees.behaviour.Behaviour:
    ask, say = ActionClient(node, Ask, "ask"), ActionClient(node, Say, "say")
    question = Goal("ask what it sees", ask, Ask.Goal(text="What do you see?"))
    thanks = py_trees.composites.Sequence("something", memory=True)
    thanks.add_children([Seen(), Goal("say thank you", say, Say.Goal(text="Thank you."))])
    sorry = Goal("say sorry", say, Say.Goal(text="Sorry, I see nothing."))
    answer = py_trees.composites.Selector("answer", memory=True, children=[thanks, sorry])
    return py_trees.composites.Sequence("root", memory=True, children=[question, answer])


def main() -> int:
    rclpy.init()
    node = Node("behaviour_tree")
    root = tree(node)
    node.create_timer(TICK_SECONDS, root.tick_once)
    try:
        while root.status in (Status.INVALID, Status.RUNNING):
            rclpy.spin_once(node)
    except KeyboardInterrupt:
        root.stop(Status.INVALID)
    print(py_trees.display.unicode_tree(root, show_status=True))
    node.destroy_node()
    rclpy.try_shutdown()
    return 0 if root.status == Status.SUCCESS else 1


if __name__ == "__main__":
    sys.exit(main())
