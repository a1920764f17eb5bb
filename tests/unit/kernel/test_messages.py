"""pyroute2 is taken in parts, and whole by whoever wants it whole."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys
import reconciler.kernel.routes
assert not [name for name in sys.modules if name.startswith("pyroute2")]
import pyroute2
assert pyroute2.IPRoute and pyroute2.netlink.rtnl.rtmsg.rtmsg
"""


def test_the_package_can_still_be_imported_in_earnest() -> None:
    assert subprocess.run([sys.executable, "-c", PROGRAM], check=False).returncode == 0
