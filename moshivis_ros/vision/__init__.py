"""What the model sees. It needs OpenCV."""

from moshivis_ros.errors import MissingDependencyError

try:
    import cv2 as cv2
except ImportError as error:
    raise MissingDependencyError(
        "pictures need OpenCV, which is not installed: `pip install opencv-python-headless`"
    ) from error
