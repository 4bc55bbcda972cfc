"""MoshiVis (arXiv 2503.15633) for robots: a live spoken conversation about what a camera sees."""

from __future__ import annotations

from pkgutil import extend_path
from typing import TYPE_CHECKING, Any

# In a colcon workspace the generated messages (moshivis_ros.msg) live in another folder than a source
# checkout.
__path__ = extend_path(__path__, __name__)
__version__ = "0.1.0"
__all__ = ["Conversation", "Frame"]

if TYPE_CHECKING:
    from moshivis_ros.conversation import Conversation, Frame


def __getattr__(name: str) -> Any:
    # Lazy: the microphone and speaker nodes import this package and must not pay for torch.
    if name in __all__:
        from moshivis_ros import conversation

        return getattr(conversation, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
