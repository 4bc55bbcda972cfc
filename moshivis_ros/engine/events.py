"""What crosses the pipe between the node and the engine process: settings in, events out. No ROS, no torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from moshivis_ros.options import Options
from moshivis_ros.transcript import Piece, Utterance


@dataclass(frozen=True)
class EngineSettings:
    """`model` and `options` of Conversation.load; `max_backlog`: frames of 80 ms by which the model may be behind;
    `simulated_time`: paced by tick(); `realtime_priority`: of the steps, where the system allows it; 0: none;
    `restarts`: times within RESTART_MEMORY that an engine which died is started again.
    """

    model: str
    options: Options = field(default_factory=Options)
    max_backlog: int = 6
    simulated_time: bool = False
    restarts: int = 0
    realtime_priority: int = 0


@dataclass(frozen=True)
class Loading:
    """How far the process is."""

    text: str


@dataclass(frozen=True)
class Loaded:
    """The model is ready. `seconds` that it took; `random`: untrained weights; `quantized`: the form of its weights
    (int8, int4), or empty, and `reason`: why, if it was chosen; `about`: what it can talk about; `realtime_priority`: of the
    steps, as the system allowed it.
    """

    seconds: float
    device: str
    random: bool
    quantized: str
    reason: str
    about: str
    realtime_priority: int


@dataclass(frozen=True)
class Sight:
    """The image cache after a frame: see Conversation's ImageStatus. `stamp` in nanoseconds."""

    stamp: int
    frame_id: str
    decision: str
    reason: str
    distance: float
    age: float
    encode_ms: float
    refreshes: int
    has_image: bool


@dataclass(frozen=True)
class Spoken:
    """What one step of the conversation gave. `stamp`: nanoseconds, of the input frame it answers."""

    run: int  # which start() this belongs to
    index: int
    stamp: int
    samples: bytes  # int16 [1920]
    gate: float
    gate_normalised: float
    gate_per_layer: list[float]
    text: list[Piece | Utterance]
    sight: Sight
    milliseconds: float  # that the step took
    renewals: int  # of the context, since loading
    counts: dict[str, int]  # since loading: what went wrong, by name
    memory: dict[str, float]  # MB, by kind


@dataclass(frozen=True)
class Trouble:
    """Something was refused, and the conversation goes on."""

    text: str


@dataclass(frozen=True)
class Ended:
    """The process is gone, and nobody asked it to go. `again`: it is being started again."""

    text: str
    again: bool


Event = Loading | Loaded | Spoken | Trouble | Ended
