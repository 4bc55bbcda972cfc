"""Point the CMake files of the ROS wheels in this Python's prefix at this Python.

They name the folders of the machine they were built on. Running it twice changes nothing more.
"""

import re
import sys
import sysconfig
from pathlib import Path

HEADERS = re.compile(r"/opt/python/cp3\d+-cp3\d+/include/python3\.\d+")
SITE_PACKAGES = re.compile(r"/opt/python/cp3\d+-cp3\d+/lib/python3\.\d+/site-packages")

headers, site_packages = sysconfig.get_path("include"), sysconfig.get_path("purelib")
for path in sorted(Path(sys.prefix).glob("share/*/cmake/*.cmake")):
    before = path.read_text()
    after = SITE_PACKAGES.sub(site_packages, HEADERS.sub(headers, before))
    if after != before:
        path.write_text(after)
