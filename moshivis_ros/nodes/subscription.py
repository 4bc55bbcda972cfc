"""A subscription that takes the reliability its publishers offer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy


class MatchedSubscription:
    """A reliable subscription gets nothing from a best-effort publisher, and a best-effort one loses large
    messages.

    So it is best effort only while somebody publishes so, unless `reliability` ("reliable", "best_effort")
    forces it. update(), called now and then, follows the publishers.
    """

    def __init__(
        self, node: Node, message: Any, topic: str, callback: Callable[[Any], None], depth: int,
        reliability: str = "auto",
    ) -> None:  # fmt: skip
        self._node, self._message, self._callback, self._depth = node, message, callback, depth
        self.topic = node.resolve_topic_name(topic)
        self._forced = None if reliability == "auto" else ReliabilityPolicy[reliability.upper()]
        self.publishers = 0
        self.best_effort = False
        self._subscription: Any = None
        self.update()

    def update(self) -> None:
        offers = [
            info.qos_profile.reliability for info in self._node.get_publishers_info_by_topic(self.topic)
        ]
        self.publishers = len(offers)
        wanted = self._forced or ReliabilityPolicy.RELIABLE
        if self._forced is None and ReliabilityPolicy.BEST_EFFORT in offers:
            wanted = ReliabilityPolicy.BEST_EFFORT
        best_effort = wanted == ReliabilityPolicy.BEST_EFFORT
        if self._subscription is None or best_effort != self.best_effort:
            self.close()
            self.best_effort = best_effort
            qos = QoSProfile(depth=self._depth, reliability=wanted)
            self._subscription = self._node.create_subscription(
                self._message, self.topic, self._callback, qos
            )

    def close(self) -> None:
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
            self._subscription = None
