#!/bin/bash
# Runs a command with ROS and this package sourced.
set -e
source /ws/install/setup.bash
exec "$@"
