"""Owner, group, mode, ACL and extended attributes of a file that is replaced by another one."""

from __future__ import annotations

import errno
import os
import stat
import sys

_FAILING = (
    errno.EIO,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.ESTALE,
    errno.ETIMEDOUT,
    errno.ENOMEM,
)
"""What stands for trouble, and not for an operation that is missing here or not allowed."""

_OF_CONTENT = frozenset(("security.capability", "security.ima", "security.evm"))
"""Capabilities, like set-uid bits, are given to a program and not to what comes in its place; the
others are signatures of the content."""

_SET_ID = stat.S_ISUID | stat.S_ISGID


def kept_mode(status: os.stat_result) -> int:
    """The mode that new content of a file gets: its set-id bits only if it is this user's own."""
    mode = stat.S_IMODE(status.st_mode)
    return mode if status.st_uid == os.geteuid() else mode & ~_SET_ID


def take_over(descriptor: int, path: str, status: os.stat_result) -> bool:
    """Give an open file everything that the file at `path`, with this status, has.

    False if not all of it can be had: a group that this user is not in, a file system without
    ownership. OSError for trouble.
    """
    try:
        mine = os.fstat(descriptor)
        if (mine.st_uid, mine.st_gid) != (status.st_uid, status.st_gid):
            # Only what differs: one may be allowed where both are not.
            uid = status.st_uid if mine.st_uid != status.st_uid else -1
            gid = status.st_gid if mine.st_gid != status.st_gid else -1
            os.fchown(descriptor, uid, gid)
        _copy_extended(descriptor, path)
        # Last, for a new owner or ACL changes the mode.
        if stat.S_IMODE(os.fstat(descriptor).st_mode) != kept_mode(status):
            os.fchmod(descriptor, kept_mode(status))
    except OSError as exc:
        if exc.errno in _FAILING:
            raise
        return False
    mine = os.fstat(descriptor)
    # Some file systems take an operation, and do nothing.
    return (mine.st_uid, mine.st_gid, stat.S_IMODE(mine.st_mode)) == (
        status.st_uid,
        status.st_gid,
        kept_mode(status),
    )


def drop_set_id(descriptor: int, status: os.stat_result) -> None:
    """Take the set-id bits from an open file that is not this user's own, before it is written."""
    if stat.S_IMODE(status.st_mode) != kept_mode(status):
        try:
            os.fchmod(descriptor, kept_mode(status))
        except PermissionError:
            return  # nor may this user keep them: the kernel takes them at the first write


def _copy_extended(descriptor: int, path: str) -> None:
    """Give an open file the ACL and the extended attributes of another one, and no more."""
    if sys.platform != "linux":
        return
    theirs, mine = _extended(path), _extended(descriptor)
    # A folder's default ACL gives new files one.
    for name in mine.keys() - theirs.keys():
        os.removexattr(descriptor, name)
    for name, value in theirs.items():
        if mine.get(name) != value:
            os.setxattr(descriptor, name, value)


def _extended(file: str | int) -> dict[str, bytes]:
    if sys.platform != "linux":
        return {}
    try:
        names = os.listxattr(file)
    except OSError as exc:
        if exc.errno in (errno.ENOTSUP, errno.ENOSYS):
            return {}
        raise
    found = {}
    for name in names:
        if name not in _OF_CONTENT and not name.startswith("trusted.overlay."):
            found[name] = os.getxattr(file, name)
    return found
