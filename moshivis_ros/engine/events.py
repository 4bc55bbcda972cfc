"""What crosses the pipe between the node and the engine process: settings in, events out. No ROS, no torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from moshivis_ros.options import Options
from moshivis_ros.transcript import Piece, Utterance

if TYPE_CHECKING:
    from moshivis_ros.vision.view import ImageStatus


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
    steps, as the system allowed it; `image_sizes`: least and largest that it can be changed to.
    """

    seconds: float
    device: str
    random: bool
    quantized: str
    reason: str
    about: str
    realtime_priority: int
    image_sizes: tuple[int, int]


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


def sight_of(image: ImageStatus) -> Sight:
    stamp, frame_id = image.stamp if image.has_image else (0, "")
    return Sight(**{**asdict(image), "stamp": stamp, "frame_id": frame_id})


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
    cut: bool  # what was said before is no longer meant


@dataclass(frozen=True)
class Progress:
    """Of the goal of this number: `text` that was said, or answered, so far. `words` of `total`: of what is to be said;
    `gate`, `sight`: while it answered, and when the answer began. `reason`: why it has not succeeded when it is `done`.
    """

    number: int
    text: str = ""
    words: int = 0
    total: int = 0
    gate: float = 0.0
    sight: Sight | None = None
    done: bool = False
    reason: str = ""


@dataclass(frozen=True)
class Asleep:
    """No step will be made, and no sound come, before sleep(False)."""


@dataclass(frozen=True)
class Trouble:
    """Something was refused, and the conversation goes on."""

    text: str


@dataclass(frozen=True)
class Ended:
    """The process is gone, and nobody asked it to go. `again`: it is being started again."""

    text: str
    again: bool


Event = Loading | Loaded | Spoken | Progress | Asleep | Trouble | Ended
