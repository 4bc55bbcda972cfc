"""Conversations on disk: bags in the layout of rosbag2, what was said and seen in them, a page about it. No ROS."""
