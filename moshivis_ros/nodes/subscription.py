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

from moshivis_ros.nodes.interface import Parameter, declare

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ModuleNotFoundError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks

QOS = QoSOverridingOptions((QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH))  # of the rest, see MatchedSubscription
RELIABILITIES = ("auto", "reliable", "best_effort")


class MatchedSubscription:
    """A reliable subscription gets nothing from a best-effort publisher. A best-effort one loses large messages, and of
    any publisher the first message, if that is sent before discovery has gone both ways.

    So it is best effort only while somebody publishes so. It changes as soon as the middleware discovers such a
    publisher, which until then has no subscription to send to (and may say so in its own log), and back within a
    second of its end. `reliability` ("reliable", "best_effort") forces it, and so does the parameter
    qos_overrides.TOPIC.subscription.reliability.

    `callback_group`: a mutually exclusive one. Any executor will do.
    """

    def __init__(
        self, node: Node, message: Any, topic: str, callback: Callable[[Any], None], depth: int,
        reliability: str = "auto", callback_group: CallbackGroup | None = None,
    ) -> None:  # fmt: skip
        self._node, self._message, self._callback, self._depth = node, message, callback, depth
        self._group = callback_group
        self._name, self.topic = topic, node.resolve_topic_name(topic)
        reliability = _overridden(node, f"qos_overrides.{self.topic}.subscription.reliability", reliability)
        self._forced = reliability != "auto"
        self._best_effort = reliability == "best_effort"
        self._lock = threading.Lock()  # the timer and the middleware may call at the same time
        self._closed = False
        self.publishers = 0
        self._subscription: Any = None
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
        """Called by a timer once a second."""
        offers = self._node.get_publishers_info_by_topic(self.topic)
        self.publishers = len(offers)
        self._follow(any(offer.qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT for offer in offers))

    def _on_incompatible(self, event: Any) -> None:
        """A best-effort publisher has come: of all policies only reliability can be at odds."""
        self._follow(best_effort=True)

    def _follow(self, best_effort: bool) -> None:
        with self._lock:
            if self._forced:
                best_effort = self._best_effort
            if self._closed or (self._subscription is not None and best_effort == self._best_effort):
                return
            if self._subscription is not None:
                self._node.destroy_subscription(self._subscription)
            self._best_effort = best_effort
            wanted = ReliabilityPolicy.BEST_EFFORT if best_effort else ReliabilityPolicy.RELIABLE
            # Without ours, the default callback warns.
            events = SubscriptionEventCallbacks(incompatible_qos=None if self._forced else self._on_incompatible)
            self._subscription = self._node.create_subscription(
                self._message,
                self._name,
                self._callback,
                QoSProfile(depth=self._depth, reliability=wanted),
                callback_group=self._group,
                event_callbacks=events,
                qos_overriding_options=QOS,
            )


def _overridden(node: Node, name: str, reliability: str) -> str:
    """The value of the parameter, which is declared here unless an earlier subscription to the topic has done so."""
    if not node.has_parameter(name):
        declare(node, [Parameter(name, reliability, "of the subscription", choices=RELIABILITIES)])
    return str(node.get_parameter(name).value)
