"""The message classes of pyroute2, by which everything that is written to netlink is encoded, and nothing else of it.

Importing the package itself also brings its database, its asynchronous sockets and its ipset, ipvs and wireless parts:
11 MB and 80 ms in every process. So the package is entered without running its `__init__`, and forgotten again, so that
whoever imports it in earnest gets all of it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec, module_from_spec

_PACKAGE = "pyroute2"


@contextmanager
def _only_its_modules() -> Iterator[None]:
    spec = None if _PACKAGE in sys.modules else find_spec(_PACKAGE)
    if spec is None:
        yield
        return
    sys.modules[_PACKAGE] = module_from_spec(spec)
    try:
        yield
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == _PACKAGE]:
            del sys.modules[name]


with _only_its_modules():
    from pyroute2.netlink.rtnl.fibmsg import fibmsg
    from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
    from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
    from pyroute2.netlink.rtnl.ndmsg import ndmsg
    from pyroute2.netlink.rtnl.rtmsg import rtmsg

__all__ = ["fibmsg", "ifaddrmsg", "ifinfmsg", "ndmsg", "rtmsg"]
