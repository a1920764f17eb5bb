"""Network namespaces by path: being inside one, making one, removing one.

Nothing is kept open: a socket that stays in a namespace keeps it and its veth pairs alive after somebody removed it.
Going in and out costs 6 µs, so every pass enters again, and a namespace that was made again under the same path is
simply the new one. Source: setns(2), network_namespaces(7), iproute2 ip/ipnetns.c.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from fcntl import LOCK_EX, flock, ioctl
from pathlib import Path
from stat import S_ISREG

from reconciler.errors import KernelError, PermissionMissing
from reconciler.model.network import HOST_NETNS

CLONE_NEWNET = 0x40000000  # linux/sched.h
MS_BIND, MS_REC, MS_SHARED = 0x1000, 0x4000, 1 << 20  # linux/mount.h
MNT_DETACH = 2
NS_GET_NSTYPE = 0xB703  # linux/nsfs.h
OF_THIS_THREAD = "/proc/thread-self/ns/net"
FOLDER = "/run/netns"  # of iproute2 (include/namespace.h)

_libc = ctypes.CDLL(None, use_errno=True)


class NamespaceMissing(KernelError):
    """No network namespace is mounted at the path."""


def identity(path: str) -> tuple[int, int] | None:
    """Device and inode of the namespace file, None if there is none. Unique while something keeps the namespace."""
    try:
        found = os.stat(path or OF_THIS_THREAD)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def is_missing(path: str) -> bool:
    """Whether there is no network namespace at the path: nothing at all, or something else.

    While one is being made there is an empty file for a moment (iproute2 ip/ipnetns.c). Raises PermissionMissing.
    """
    try:
        with opened(path) as there:
            return ioctl(there, NS_GET_NSTYPE) != CLONE_NEWNET
    except (NamespaceMissing, OSError):  # OSError: no namespace at all (ENOTTY)
        return True


def is_own(path: str) -> bool:
    """Whether a path other than '' leads to the namespace that the calling thread is in."""
    return path != HOST_NETNS and identity(path) == identity(HOST_NETNS)


def refuse_own(path: str) -> None:
    """Raises KernelError: what a repository asks for a workload is not done to the host itself."""
    if is_own(path):
        raise KernelError(
            f"{path} is the host's own network namespace, not a workload's",
            remedy="correct the netns of the workload",
        )


@contextmanager
def opened(path: str) -> Iterator[int]:
    """A file descriptor of the namespace. Raises NamespaceMissing, PermissionMissing."""
    try:
        there = os.open(path or OF_THIS_THREAD, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise _absent_or_refused(error, path) from error
    try:
        yield there
    finally:
        os.close(there)


@contextmanager
def inside(path: str) -> Iterator[None]:
    """The calling thread, and no other, is in the namespace at `path` until the block ends; '' leaves it where it is.

    Do not await inside. Raises NamespaceMissing, PermissionMissing.
    """
    if path == HOST_NETNS:
        yield
        return
    with opened(HOST_NETNS) as home:
        with opened(path) as there:
            try:
                _check(_libc.setns(there, CLONE_NEWNET))
            except OSError as error:
                raise _absent_or_refused(error, path) from error
        try:
            yield
        finally:
            _return(home)


def _share_folder() -> None:
    """As the first `ip netns add` of a host does it: that one would lay the folder over itself, and the namespaces that
    are there already would be mounted below too, where nobody can remove them.
    """
    folder = os.open(FOLDER, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        flock(folder, LOCK_EX)
        path, shared = FOLDER.encode(), MS_SHARED | MS_REC
        if _libc.mount(b"", path, b"none", shared, None):
            if ctypes.get_errno() != errno.EINVAL:  # it is no mount point
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), FOLDER)
            _check(_libc.mount(path, path, b"none", MS_BIND | MS_REC, None))
            _check(_libc.mount(b"", path, b"none", shared, None))
    finally:
        os.close(folder)


def create(path: str) -> None:
    """A new namespace, mounted at `path` as `ip netns add` does; its loopback is down. Raises KernelError."""
    try:
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        if os.path.dirname(path) == FOLDER:
            _share_folder()
        os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0))
    except FileExistsError as error:
        raise KernelError(f"{path} is already there") from error
    except OSError as error:
        raise _refused(error, f"cannot make {path}") from error
    try:
        with opened(HOST_NETNS) as home:
            _check(_libc.unshare(CLONE_NEWNET))
            try:
                _check(_libc.mount(OF_THIS_THREAD.encode(), path.encode(), b"none", MS_BIND, None))
            finally:
                _return(home)
    except OSError as error:
        os.unlink(path)
        raise _refused(error, f"cannot make the network namespace {path}") from error


def remove(path: str) -> None:
    """Unmounts and unlinks, as `ip netns del` does; one that is gone is success. Raises KernelError."""
    try:
        _check(_libc.umount2(path.encode(), MNT_DETACH))
    except OSError as error:
        if error.errno == errno.ENOENT:
            return
        if error.errno != errno.EINVAL:
            raise _refused(error, f"cannot remove the network namespace {path}") from error
    left = os.lstat(path)
    if not S_ISREG(left.st_mode) or left.st_size:
        raise KernelError(f"{path} is not the mount point of a network namespace")
    Path(path).unlink(missing_ok=True)


def _return(home: int) -> None:
    if _libc.setns(home, CLONE_NEWNET):  # this thread must not go on: it would work on a workload's network
        raise SystemExit(f"cannot return to the own network namespace: {os.strerror(ctypes.get_errno())}")


def _check(result: int) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _absent_or_refused(error: OSError, path: str) -> KernelError:
    if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.EINVAL):  # EINVAL: a file, but no namespace on it
        return NamespaceMissing(
            f"there is no network namespace at {path}",
            remedy="start the workload, or correct its netns",
        )
    return _refused(error, f"cannot enter the network namespace {path}")


def _refused(error: OSError, what: str) -> KernelError:
    kind = PermissionMissing if error.errno in (errno.EPERM, errno.EACCES) else KernelError
    return kind(f"{what}: {error.strerror}")
