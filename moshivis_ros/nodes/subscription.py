"""A subscription that takes the reliability its publishers offer."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from rclpy.callback_groups import CallbackGroup
from rclpy.clock import Clock, ClockType  # type: ignore[attr-defined]
from rclpy.node import Node
from rclpy.qos import QoSPolicyKind, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ModuleNotFoundError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks

OVERRIDABLE = QoSOverridingOptions((QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH))


class MatchedSubscription:
    """A reliable subscription gets nothing from a best-effort publisher, and a best-effort one loses large
    messages.

    So it is best effort only while somebody publishes so, unless `reliability` ("reliable", "best_effort") forces
    it. It changes as soon as the middleware discovers a best-effort publisher, which until then has no subscription
    to send to, and back within a second of the last one's end. Parameters (qos_overrides) may change its depth.
    For any executor.
    """

    def __init__(
        self, node: Node, message: Any, topic: str, callback: Callable[[Any], None], depth: int,
        reliability: str = "auto", callback_group: CallbackGroup | None = None,
    ) -> None:  # fmt: skip
        self._node, self._message, self._callback, self._depth = node, message, callback, depth
        self._group = callback_group
        self._name, self.topic = topic, node.resolve_topic_name(topic)
        self._auto = reliability == "auto"
        self._lock = threading.Lock()  # the timer and the middleware may call at the same time
        self._closed = False
        self._subscription: Any = None
        self.best_effort = reliability == "best_effort"
        self.publishers = 0
        self._subscribe(self.best_effort)
        self.update()
        # Not the node's clock: that of a paused simulation stands still.
        self._timer = node.create_timer(
            1.0, self.update, callback_group=callback_group, clock=Clock(clock_type=ClockType.STEADY_TIME)
        )

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._node.destroy_timer(self._timer)
            self._node.destroy_subscription(self._subscription)

    def update(self) -> None:
        """Called by a timer once a second: what the publishers offer now."""
        offers = [
            info.qos_profile.reliability for info in self._node.get_publishers_info_by_topic(self.topic)
        ]
        self.publishers = len(offers)
        if self._auto:
            self._subscribe(ReliabilityPolicy.BEST_EFFORT in offers)

    def _on_incompatible(self, event: Any) -> None:
        """A best-effort publisher was discovered: of all policies ours asks more only of reliability."""
        self._subscribe(best_effort=True)

    def _subscribe(self, best_effort: bool) -> None:
        with self._lock:
            if self._closed or (self._subscription is not None and best_effort == self.best_effort):
                return
            if self._subscription is not None:
                self._node.destroy_subscription(self._subscription)
            self.best_effort = best_effort
            wanted = ReliabilityPolicy.BEST_EFFORT if best_effort else ReliabilityPolicy.RELIABLE
            # Where it is forced, the default callback warns.
            events = SubscriptionEventCallbacks(incompatible_qos=self._on_incompatible if self._auto else None)
            self._subscription = self._node.create_subscription(
                self._message,
                self._name,
                self._callback,
                QoSProfile(depth=self._depth, reliability=wanted),
                callback_group=self._group,
                event_callbacks=events,
                qos_overriding_options=OVERRIDABLE,
            )
