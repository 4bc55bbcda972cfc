"""Point the CMake files of the ROS wheels in this Python's prefix at the headers of this Python and its numpy.

They name the folders of the machine they were built on. Running it twice changes nothing more.
"""

import re
import sys
import sysconfig
from pathlib import Path

import numpy

built_on = r"/opt/python/cp3\d+-cp3\d+"
python_headers = re.compile(built_on + r"/include/python3\.\d+")
numpy_headers = re.compile(built_on + r"/lib/python3\.\d+/site-packages/numpy/_?core/include")

for path in sorted(Path(sys.prefix).glob("share/*/cmake/*.cmake")):
    before = path.read_text()
    after = python_headers.sub(sysconfig.get_path("include"), before)
    after = numpy_headers.sub(numpy.get_include(), after)
    if after != before:
        path.write_text(after)
