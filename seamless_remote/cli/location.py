"""Where a file is: its folder as a descriptor, and its name there.

So paths may be as long as the system takes them, in a current folder of any depth, and a folder
that is renamed meanwhile stays the same one.
"""

from __future__ import annotations

import errno
import os

_FOLDER = os.O_DIRECTORY | os.O_CLOEXEC | getattr(os, "O_PATH", os.O_RDONLY)
_LINKS = 40
"""How many links are followed, as by the kernel."""


class Location:
    """A file, or a place for one. `close` it; the folder's descriptor is held until then."""

    def __init__(self, folder: int, name: str) -> None:
        self._folder = folder
        self.name = name

    @classmethod
    def of(cls, path: str) -> Location:
        """The place that a path leads to, through links at its end, dangling ones included.

        OSError if its folder does not exist, is not a folder, or cannot be entered.
        """
        folder = os.open(".", _FOLDER)
        try:
            for _ in range(_LINKS):
                head, name = os.path.split(path)
                if head:
                    inner = os.open(head, _FOLDER, dir_fd=folder)
                    os.close(folder)
                    folder = inner
                if name in ("", ".", ".."):
                    raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
                try:
                    path = os.readlink(name, dir_fd=folder)
                except FileNotFoundError:
                    return cls(folder, name)
                except OSError as exc:
                    if exc.errno != errno.EINVAL:  # EINVAL: not a link
                        raise
                    return cls(folder, name)
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        except BaseException:
            os.close(folder)
            raise

    @property
    def proc_path(self) -> str:
        """A short path of the file, for calls that take neither a folder nor the file (Linux)."""
        return f"/proc/self/fd/{self._folder}/{self.name}"

    def status(self) -> os.stat_result | None:
        """The status of the file; None if there is none."""
        try:
            return os.stat(self.name, dir_fd=self._folder, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def open(self, flags: int, mode: int = 0o600, *, name: str | None = None) -> int:
        """Open the file, or one beside it; returns the descriptor."""
        return os.open(name or self.name, flags | os.O_CLOEXEC, mode, dir_fd=self._folder)

    def require_writable(self) -> None:
        """OSError unless the file, which exists, may be written."""
        effective = os.access in os.supports_effective_ids
        if not os.access(self.name, os.W_OK, dir_fd=self._folder, effective_ids=effective):
            # That says no more than no.
            os.close(self.open(os.O_WRONLY | os.O_NONBLOCK))

    def replace_by(self, name: str) -> None:
        """Rename a file beside it over it."""
        os.replace(name, self.name, src_dir_fd=self._folder, dst_dir_fd=self._folder)

    def unlink(self, name: str) -> None:
        """Remove a file beside it."""
        os.unlink(name, dir_fd=self._folder)

    def close(self) -> None:
        """Let go of the folder. Safe to repeat."""
        folder, self._folder = self._folder, -1
        if folder >= 0:
            os.close(folder)
