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

OLDEST = (
    2,
    5,
)  # with CUDA graphs that take a generator of their own, RMS norm and device-wide memory figures
if tuple(map(int, torch.__version__.split(".")[:2])) < OLDEST:
    raise MissingDependencyError(
        f"torch {torch.__version__} is too old: `pip install --upgrade 'torch>=2.5'` (on a Jetson take NVIDIA's wheel of "
        "2.5 or later for your JetPack)"
    )
