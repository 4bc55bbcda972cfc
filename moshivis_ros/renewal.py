"""When the context of a long conversation begins anew."""

from __future__ import annotations

import logging

from moshivis_ros.audio import FRAME_SECONDS, Float
from moshivis_ros.audio.quiet import Quiet
from moshivis_ros.errors import ConfigError

PAUSE = 8  # frames (0.64 s) in which nobody speaks
SHORTEST = 4  # frames to keep, more than any stream's delay
log = logging.getLogger(__name__)


class Renewal:
    """At a pause of both speakers, once the context is longer than ``after`` seconds (0: never).

    Its last ``keep`` seconds are carried over, or as many as the window of ``context`` frames holds. Raises ConfigError
    for times that do not fit each other.
    """

    def __init__(self, after: float, keep: float, context: int) -> None:
        self._after = round(after / FRAME_SECONDS)
        self.keep = min(round(keep / FRAME_SECONDS), context) if after else 0  # frames
        self.count = 0  # renewals since loading
        if after and not SHORTEST <= self.keep < self._after:
            least = SHORTEST * FRAME_SECONDS
            raise ConfigError(
                f"renew_keep ({keep} s) must be less than renew_after ({after} s), and {least} s at least"
            )
        self.begin()

    def begin(self) -> None:
        """A new conversation."""
        self._heard, self._said = Quiet(), Quiet()
        self._quiet_frames = 0

    def due(self, frame: int, context: int, wordless: int, heard: Float, said: Float) -> bool:
        """After every frame (its number, and the sound of both, float32 [1920]): does the context begin anew now?

        ``context``: frames of it; ``wordless``: frames since the model's last word, 0 in the frame of a word.
        """
        if not self._after:
            return False
        both_quiet = self._heard(heard) & self._said(said)
        self._quiet_frames = self._quiet_frames + 1 if both_quiet and wordless else 0
        if context < self._after or self._quiet_frames < PAUSE:
            return False
        self.count += 1
        times = (count * FRAME_SECONDS for count in (frame, context, self.keep))
        log.info("%.1f s: in this pause the context of %.1f s begins anew with its last %.1f s", *times)
        return True
