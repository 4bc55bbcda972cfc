"""The network. It needs torch, which this package never installs by itself: a robot has its own build of
it.
"""

from moshivis_ros.errors import MissingDependencyError

try:
    import torch as torch
except ImportError as error:
    raise MissingDependencyError(
        "torch is not installed: `pip install torch` (on a Jetson take NVIDIA's wheel for your JetPack)"
    ) from error
