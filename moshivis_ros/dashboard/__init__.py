"""The page that shows a conversation, and its web server. No ROS: nodes/dashboard.py connects it."""
