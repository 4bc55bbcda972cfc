"""How tokens are drawn, as settings. No torch: command line and nodes show them, too."""

from __future__ import annotations

from dataclasses import dataclass, field

from moshivis_ros.errors import ConfigError

MAX_TOP_K = 250
_TEMPERATURE = {"range": (0.0, 10.0), "unset": -1.0, "otherwise": "what suits the checkpoint"}
_TOP_K = {"range": (1, MAX_TOP_K)}


@dataclass(frozen=True)
class Sampling:
    """Chance in what is said. None: what suits the checkpoint (its config.yaml).

    The top-k are those of the reference's server and web client.

    text_temperature: chance in the choice of words; 0: always the most likely.
    text_top_k: words are drawn from this many likely ones.
    audio_temperature: chance in the voice; 0: always the most likely.
    audio_top_k: sounds are drawn from this many likely ones.
    """

    text_temperature: float | None = field(default=None, metadata=_TEMPERATURE)
    text_top_k: int = field(default=25, metadata=_TOP_K)
    audio_temperature: float | None = field(default=None, metadata=_TEMPERATURE)
    audio_top_k: int = field(default=MAX_TOP_K, metadata=_TOP_K)

    def __post_init__(self) -> None:
        for name in ("text_temperature", "audio_temperature"):
            if (value := getattr(self, name)) is not None and not 0 <= value <= 10:
                raise ConfigError(f"{name} must be between 0 (greedy) and 10, not {value}")
        for name in ("text_top_k", "audio_top_k"):
            if not 1 <= getattr(self, name) <= MAX_TOP_K:
                raise ConfigError(f"{name} must be between 1 and {MAX_TOP_K}, not {getattr(self, name)}")
