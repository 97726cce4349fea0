"""What happens to a file that is replaced: it stays the file that it was, with new content."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from command import Command, names, store

from seamless_remote.cli.file_destination import FileDestination
from seamless_remote.cli.statuses import Failure, Status

NEW = os.urandom(100_000)
SOMEBODY, THEIR_GROUP, SHARED_GROUP = 12_345, 12_346, 12_347

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be several users")


def deliver(path: Path | str, content: bytes = NEW, *, in_place: bool = False) -> None:
    """Write a buffer to a file as the tools do."""
    destination = FileDestination(str(path), in_place=in_place)
    try:
        destination.check()
        destination.open().write(content)
        destination.deliver()
    finally:
        destination.discard()


@contextlib.contextmanager
def somebody(groups: Sequence[int] = ()) -> Iterator[None]:
    """The block runs as another user than root."""
    before = os.getgroups()
    os.setgroups(groups)
    os.setegid(THEIR_GROUP)
    os.seteuid(SOMEBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(before)


@contextlib.contextmanager
def mounted(*arguments: object) -> Iterator[None]:
    """A mount, as long as the block runs; the last argument is where. Skips where none can be."""
    done = subprocess.run(["mount", *map(str, arguments)], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"nothing can be mounted: {done.stderr.decode().strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(arguments[-1])], check=True)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that another user can reach, which pytest's are not."""
    path = Path(tempfile.mkdtemp(prefix="seamless-replacing-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def old(folder: Path) -> Path:
    """A file to be replaced."""
    path = folder / "out"
    path.write_text("old")
    return path


def facts(path: Path) -> tuple[int, int, int]:
    """Owner, group and mode."""
    status = path.stat()
    return status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)


def check_only(path: Path) -> None:
    """The file holds the new content, and nothing else is in its folder."""
    assert path.read_bytes() == NEW
    assert names(path.parent) == {path.name}


@needs_root
@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664, 0o444])
def test_the_file_of_another_user_stays_theirs(old: Path, mode: int, in_place: bool) -> None:
    os.chown(old, SOMEBODY, THEIR_GROUP)
    old.chmod(mode)
    deliver(old, in_place=in_place)
    assert facts(old) == (SOMEBODY, THEIR_GROUP, mode)
    check_only(old)


@needs_root
@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("bits", [stat.S_ISUID, stat.S_ISGID, stat.S_ISUID | stat.S_ISGID])
def test_a_program_of_another_user_is_no_longer_set_id(
    old: Path, bits: int, in_place: bool
) -> None:
    os.chown(old, SOMEBODY, THEIR_GROUP)
    old.chmod(0o755 | bits)
    deliver(old, in_place=in_place)
    assert facts(old) == (SOMEBODY, THEIR_GROUP, 0o755)
    check_only(old)


@pytest.mark.parametrize("mode", [0o600, 0o755, 0o4755])
def test_ones_own_file_keeps_its_mode(old: Path, mode: int) -> None:
    old.chmod(mode)
    deliver(old)
    assert facts(old)[2] == mode


@needs_root
def test_capabilities_of_a_program_are_not_given_to_what_comes_in_its_place(old: Path) -> None:
    value = struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0)  # cap_net_raw, VFS_CAP_REVISION_2
    _set_attribute(old, "security.capability", value)
    deliver(old)
    assert "security.capability" not in os.listxattr(old)


def test_extended_attributes_and_the_acl_stay(old: Path) -> None:
    acl = _acl((0x01, 6), (0x02, 6, SOMEBODY), (0x04, 4), (0x10, 6), (0x20, 0))
    _set_attribute(old, "system.posix_acl_access", acl)
    _set_attribute(old, "user.origin", b"a telescope")
    deliver(old)
    assert os.getxattr(old, "system.posix_acl_access") == acl
    assert os.getxattr(old, "user.origin") == b"a telescope"
    check_only(old)


def test_a_replaced_file_gets_no_acl_that_it_had_not(folder: Path) -> None:
    """A new one does: its folder's default."""
    old = folder.parent / f"{folder.name}-old"
    old.write_text("old")
    default = _acl((0x01, 7), (0x02, 7, SOMEBODY), (0x04, 5), (0x10, 7), (0x20, 5))
    _set_attribute(folder, "system.posix_acl_default", default)
    old.rename(folder / "old")
    deliver(folder / "old")
    deliver(folder / "new")
    assert "system.posix_acl_access" not in os.listxattr(folder / "old")
    assert "system.posix_acl_access" in os.listxattr(folder / "new")


@needs_root
def test_a_file_of_a_shared_group_keeps_it(folder: Path, old: Path) -> None:
    folder.chmod(0o777)
    os.chown(old, SOMEBODY, SHARED_GROUP)
    old.chmod(0o664)
    with somebody([SHARED_GROUP]):
        deliver(old)
    assert facts(old) == (SOMEBODY, SHARED_GROUP, 0o664)
    check_only(old)


@needs_root
@pytest.mark.parametrize(
    ("mode", "owner"),
    [(0o755, SOMEBODY), (0o1777, 0), (0o777, 0)],
    ids=["folder not writable", "sticky folder", "owner of the file not to be had"],
)
def test_what_renaming_cannot_do_is_done_in_place(
    folder: Path, old: Path, mode: int, owner: int
) -> None:
    os.chown(old, owner, SHARED_GROUP)
    old.chmod(0o666)
    folder.chmod(mode)
    before = old.stat().st_ino
    with somebody():
        deliver(old)
    assert facts(old) == (owner, SHARED_GROUP, 0o666)
    assert old.stat().st_ino == before
    check_only(old)


@needs_root
def test_a_mounted_file_is_written_in_place(folder: Path, old: Path) -> None:
    other = folder.parent / f"{folder.name}-other"
    other.write_text("old")
    try:
        with mounted("--bind", other, old):
            deliver(old)
            assert old.read_bytes() == NEW
        assert other.read_bytes() == NEW
        assert old.read_text() == "old"
        assert names(folder) == {"out"}
    finally:
        other.unlink()


@pytest.mark.parametrize("in_place", [False, True])
def test_other_links_see_the_buffer_only_if_it_is_written_in_place(
    folder: Path, old: Path, in_place: bool
) -> None:
    os.link(old, folder / "link")
    deliver(old, in_place=in_place)
    assert old.read_bytes() == NEW
    assert (folder / "link").read_bytes() == (NEW if in_place else b"old")
    assert names(folder) == {"out", "link"}


@pytest.mark.parametrize("length", [0, 10, 200_000])
def test_a_file_written_in_place_holds_the_buffer_alone(old: Path, length: int) -> None:
    old.write_bytes(b"x" * 50_000)
    deliver(old, b"y" * length, in_place=True)
    assert old.read_bytes() == b"y" * length


@needs_root
def test_a_full_disk_leaves_the_old_file_also_when_it_was_to_be_written_in_place(
    folder: Path,
) -> None:
    with mounted("-t", "tmpfs", "-o", "size=64k", "tmpfs", folder):
        old = folder / "out"
        old.write_text("old")
        os.chown(old, SOMEBODY, THEIR_GROUP)
        # The temporary file is elsewhere, where there is room.
        folder.chmod(0o755)
        with somebody(), pytest.raises(Failure, match="No space left on device"):
            deliver(old)
        assert old.read_text() == "old"


@needs_root
def test_a_temporary_file_that_cannot_be_removed_hides_no_error(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder.chmod(0o777)
    destination = FileDestination(str(folder / "out"))
    with somebody():
        destination.open().write(NEW)
    folder.chmod(0o755)
    with somebody():
        destination.abandon()
        destination.discard()
    assert "cannot remove .seamless-" in caplog.text
    assert "Permission denied" in caplog.text


@pytest.mark.parametrize("name", ["no/such/out", "link", "file/out"])
def test_a_folder_that_does_not_exist_is_named(old: Path, name: str) -> None:
    (old.parent / "link").symlink_to("no/such/out")
    (old.parent / "file").touch()
    folder = "no/such" if name == "link" else old.parent / os.path.dirname(name)
    with pytest.raises(Failure, match=f"the folder {folder} does not exist"):
        deliver(old.parent / name)


def test_a_file_that_goes_away_meanwhile_comes_back_with_its_mode(old: Path) -> None:
    old.chmod(0o640)
    destination = FileDestination(str(old))
    destination.open().write(NEW)
    old.unlink()
    destination.deliver()
    destination.discard()
    assert facts(old)[2] == 0o640
    check_only(old)


def test_a_path_may_be_as_long_as_the_system_takes_it(folder: Path) -> None:
    inner = str(folder)
    while len(inner) < 3800:
        inner += "/" + "n" * 200
    os.makedirs(inner)
    path = inner + "/" + "n" * (4082 - len(inner) - 1)
    for _ in range(2):
        deliver(path)
        with open(path, "rb") as file:
            assert file.read() == NEW
    assert len(os.listdir(inner)) == 1


def test_the_current_folder_may_be_deeper_than_a_path(folder: Path) -> None:
    before = os.open(".", os.O_RDONLY)
    try:
        os.chdir(folder)
        for _ in range(25):
            os.mkdir("n" * 200)
            os.chdir("n" * 200)
        Path("link").symlink_to("target")
        for name in ("out", "out", "link"):
            deliver(name)
        assert set(os.listdir(".")) == {"out", "link", "target"}
        assert Path("out").read_bytes() == Path("target").read_bytes() == NEW
    finally:
        os.fchdir(before)
        os.close(before)


# Stands between Python and the C library; a file system without an operation refuses it like this.
LIBRARY = r"""
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>
static int refused(const char *name) {
    const char *code = getenv(name);
    return code ? errno = atoi(code) : 0;
}
#define OR(name, call) refused(name) ? -1 : call
int fchmod(int fd, mode_t mode) { return OR("FCHMOD", syscall(SYS_fchmod, fd, mode)); }
int fsync(int fd) { return OR("FSYNC", syscall(SYS_fsync, fd)); }
ssize_t listxattr(const char *path, char *list, size_t size) {
    return OR("LISTXATTR", syscall(SYS_listxattr, path, list, size));
}
ssize_t flistxattr(int fd, char *list, size_t size) {
    return OR("LISTXATTR", syscall(SYS_flistxattr, fd, list, size));
}
int posix_fallocate(int fd, off_t start, off_t length) { return refused("FALLOCATE"); }
int posix_fallocate64(int fd, off_t start, off_t length) { return refused("FALLOCATE"); }
"""


@pytest.fixture(scope="session")
def refusing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library to be loaded before the C library."""
    compiler = shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("a C compiler makes the library that refuses operations")
    folder = tmp_path_factory.mktemp("refusing")
    (folder / "refusing.c").write_text(LIBRARY)
    library = folder / "refusing.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, folder / "refusing.c"], check=True)
    return library


EPERM, EIO, EINVAL, ENOSPC, ENOSYS, ENOTSUP = 1, 5, 22, 28, 38, 95


@pytest.mark.parametrize(
    ("refusals", "status"),
    [
        ({"FCHMOD": EPERM, "FSYNC": EINVAL, "LISTXATTR": ENOTSUP}, Status.DONE),
        ({"FCHMOD": ENOSYS, "FSYNC": ENOSYS, "FALLOCATE": ENOTSUP}, Status.DONE),
        ({"FSYNC": EIO}, Status.UNWRITABLE_OUTPUT),
        ({"LISTXATTR": EIO}, Status.UNWRITABLE_OUTPUT),
        ({"FCHMOD": EPERM, "FALLOCATE": ENOSPC}, Status.UNWRITABLE_OUTPUT),
    ],
)
def test_an_operation_that_a_file_system_lacks_is_no_error_and_one_that_fails_is(
    tool: Command, store_folder: Path, refusing: Path, refusals: dict[str, int], status: Status
) -> None:
    old = tool.folder / "out"
    old.write_text("old")
    old.chmod(0o664)
    env = {"LD_PRELOAD": str(refusing)} | {name: str(code) for name, code in refusals.items()}
    ended = tool.resolve(store(store_folder, NEW), "--output", "out", env=env)
    assert ended.status == status, ended.stderr
    assert old.read_bytes() == (NEW if status is Status.DONE else b"old")
    assert facts(old)[2] == 0o664
    assert names(tool.folder) == {"out"}


def _set_attribute(path: Path, name: str, value: bytes) -> None:
    try:
        os.setxattr(path, name, value)
    except OSError as exc:
        pytest.skip(f"no attribute {name} here: {exc}")


def _acl(*entries: tuple[int, ...]) -> bytes:
    """An ACL as Linux keeps it, of entries with a tag, permissions and perhaps an id."""
    nobody = 0xFFFFFFFF
    return struct.pack("<I", 2) + b"".join(
        struct.pack("<HHI", entry[0], entry[1], entry[2] if len(entry) > 2 else nobody)
        for entry in entries
    )
