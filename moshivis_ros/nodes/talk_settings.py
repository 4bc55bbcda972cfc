"""The talk node's parameters as the engine's settings, and which of them may change while it talks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import fields
from typing import Any

from rcl_interfaces.msg import SetParametersResult
from rclpy.node import Node

from moshivis_ros.engine.events import EngineSettings
from moshivis_ros.errors import ConfigError
from moshivis_ros.nodes.interface import values
from moshivis_ros.nodes.talk_interface import PARAMETERS
from moshivis_ros.options import REFRESH, Options
from moshivis_ros.sampling import Sampling
from moshivis_ros.vision.refresh_policy import Settings

USED = {"mute", "voice_command"}  # read at every use
TUNED = {"seed", "image_size"} | {f.name for f in fields(Sampling)} | {f"{REFRESH}{f.name}" for f in fields(Settings)}
LIVE = USED | TUNED  # all others need a configure


def settings(given: dict[str, Any], simulated: bool) -> EngineSettings:
    """`given`: every parameter by name. Raises ConfigError."""
    return EngineSettings(
        given["model"],
        Options.of(given),
        max_backlog=given["max_backlog"],
        simulated_time=simulated,
        restarts=given["restarts"],
        realtime_priority=given["realtime_priority"],
    )


class LiveParameters:
    """Refuses what cannot change now, and says why; tells `changed` (names) when the rest has changed.

    `loading`: the engine is, with the values that were; `image_sizes`: least and largest that it takes; None: there is no
    engine, and everything may change.
    """

    def __init__(self, node: Node, changed: Callable[[set[str]], None], loading: Callable[[], bool]) -> None:
        self.image_sizes: tuple[int, int] | None = None
        self._node, self._changed, self._loading = node, changed, loading
        node.add_on_set_parameters_callback(self._check)

    def _check(self, parameters: Iterable[Any]) -> SetParametersResult:
        names = {row.name for row in PARAMETERS}
        new = {parameter.name: parameter.value for parameter in parameters if parameter.name in names}
        if reason := self._refusal(new):
            return SetParametersResult(successful=False, reason=reason)
        if new and self._node.executor is not None:  # before it spins there is nothing to tell
            # Later, with the values that hold then: another check may still refuse these.
            self._node.executor.create_task(self._changed, set(new))
        return SetParametersResult(successful=True)

    def _refusal(self, new: dict[str, Any]) -> str:
        loading = self._loading()
        if not new or not (loading or self.image_sizes):
            return ""
        if late := sorted(set(new) - LIVE):
            return f"{', '.join(late)}: read when the node is configured; clean it up first (ros2 lifecycle set)"
        if early := sorted(set(new) - USED if loading else ()):
            return f"{', '.join(early)}: the model is being loaded; wait until it is, or end that with ~/cancel_loading"
        if self.image_sizes is None:
            return ""
        least, largest = self.image_sizes
        if new.get("image_size") and not least <= new["image_size"] <= largest:
            return (
                f"image_size: from {least} (one patch) to {largest}, for which memory was taken when the node was configured"
            )
        try:
            settings({**values(self._node, PARAMETERS), **new}, False)
        except ConfigError as error:
            return str(error)
        return ""
