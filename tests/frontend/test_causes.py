"""A launch that fails says why, in the words of ssh or of the service, and what to do."""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
from collections.abc import Callable

import pytest
from laptop import Laptop
from network_path import Way

from seamless_remote import Settings
from seamless_remote.demo.frontend import ADDRESS, SSH_NAME
from seamless_remote.errors import LaunchError
from seamless_remote.launching.placement import Placement
from seamless_remote.nursery.process import this_process

SIGNS_OF_NO_CAUSE = ("None", "Conda is not", "SSHExecutor", "..", "Traceback")


def launch(tool: str = "hashserver") -> str:
    """The text of the error with which a launch fails."""
    with pytest.raises(LaunchError) as caught:
        Placement.of().launch(tool, mode="rw").ensure()
    text = str(caught.value)
    for sign in SIGNS_OF_NO_CAUSE:
        assert sign not in text
    assert f"the {tool} of testproject on " in text
    return text


def unknown_host(laptop: Laptop) -> None:
    laptop.frontend.write_ssh_config(hostname="no-such-host.invalid")


def unknown_host_key(laptop: Laptop) -> None:
    (laptop.path / ".ssh" / "known_hosts").unlink()


def changed_host_key(laptop: Laptop) -> None:
    known = laptop.path / ".ssh" / "known_hosts"
    other = laptop.frontend.home.parent / "key.pub"
    known.write_text(f"{SSH_NAME} {other.read_text()}")


def refused_key(laptop: Laptop) -> None:
    laptop.frontend.allow_key(False)


def server_away(laptop: Laptop) -> None:
    laptop.frontend.write_ssh_config(laptop.frontend.port)
    laptop.frontend.stop()


def server_turns_away(laptop: Laptop) -> None:
    laptop.network.put(Way.CLOSED)


def silent_server(laptop: Laptop) -> None:
    laptop.frontend.write_ssh_config(laptop.network.port, "ConnectTimeout 1")
    laptop.network.put(Way.SILENT)


def malformed_configuration(laptop: Laptop) -> None:
    laptop.frontend.write_ssh_config(laptop.network.port, "Nonsense yes")


@pytest.mark.parametrize(
    ("fault", "words", "advice"),
    [
        (unknown_host, "Could not resolve hostname no-such-host.invalid", "'ssh_hostname'"),
        (unknown_host_key, "Host key verification failed", "run `ssh frontend` once by hand"),
        (changed_host_key, "Host key for frontend has changed", "ask its administrators"),
        (refused_key, "Permission denied (publickey)", "ssh-add"),
        (server_away, "Connection refused", "Is the host up"),
        (server_turns_away, "Connection", "Is the host up"),
        (silent_server, "timed out", "Is the host up"),
        (malformed_configuration, "Bad configuration option: nonsense", "See to ~/.ssh/config"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_login_that_fails_is_told_in_the_words_of_ssh(
    laptop: Laptop,
    select: Callable[[str], None],
    fault: Callable[[Laptop], None],
    words: str,
    advice: str,
) -> None:
    select("direct")
    fault(laptop)
    text = launch()
    assert f"cannot log in to {SSH_NAME}: " in text
    assert words in text
    assert advice in text


def test_a_missing_ssh_is_told(
    laptop: Laptop, select: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    select("direct")
    monkeypatch.setenv("PATH", "/nowhere")
    assert "there is no ssh on the PATH" in launch()


def test_a_login_that_the_user_shares_is_used_but_for_tunnels(
    laptop: Laptop, select: Callable[[str], None]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        laptop.frontend.write_ssh_config(
            laptop.network.port,
            "ControlMaster auto",
            f"ControlPath {folder}/s",
            "ControlPersist 60",
        )
        subprocess.run(["ssh", SSH_NAME, "true"], check=True, stderr=subprocess.DEVNULL)
        try:
            # As if it had taken a code that only the user has.
            laptop.frontend.allow_key(False)
            select("direct")
            Placement.of().launch("hashserver", mode="rw").ensure()
            select("tunneled")
            assert "no tunnel goes through the shared login" in launch()
        finally:
            subprocess.run(["ssh", "-O", "exit", SSH_NAME], check=True, stderr=subprocess.DEVNULL)


def test_ports_that_the_user_forwards_are_no_fault(
    laptop: Laptop, select: Callable[[str], None]
) -> None:
    with socket.create_server(("localhost", 0)) as taken:
        laptop.frontend.write_ssh_config(
            laptop.network.port,
            f"LocalForward {taken.getsockname()[1]} localhost:80",
            "ExitOnForwardFailure yes",
        )
        select("tunneled")
        Placement.of().launch("hashserver", mode="rw").ensure()


def unwritable_folder(laptop: Laptop) -> None:
    laptop.change("bufferdir", "/proc/nowhere")


def blank_in_a_path(laptop: Laptop) -> None:
    laptop.change("bufferdir", "/tmp/my buffers")


def no_environment(laptop: Laptop) -> None:
    laptop.change("conda", "not-there")


def talkative_shell(laptop: Laptop) -> None:
    start_up = laptop.frontend.home / ".bashrc"
    start_up.write_text(f"echo Welcome to the cluster\n{start_up.read_text()}")


def wrong_clock(laptop: Laptop) -> None:
    programs = laptop.frontend.home / "miniforge3" / "bin"
    (programs / "date").write_text("#!/bin/sh\necho 1000000000\n")
    (programs / "date").chmod(0o755)
    laptop.change("conda", "not-there")  # it is told beside another fault as well


def no_programs(laptop: Laptop) -> None:
    laptop.change("conda", "not-there")
    for helper in (laptop.frontend.home / "miniforge3" / "bin").glob("rhl-*"):
        helper.unlink()


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (unwritable_folder, "/proc/nowhere"),
        (blank_in_a_path, "not '/tmp/my buffers/testproject': see to it in ~/.seamless/clusters"),
        (
            no_environment,
            "Conda environment 'not-there' is not listed in the conda cache for front",
        ),
        (talkative_shell, "The shell on frontend prints 'Welcome to the cluster' at its start"),
        (wrong_clock, "s behind: set it"),
        (no_programs, "are not on the PATH of `ssh frontend COMMAND`: install it there"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_is_wrong_with_a_frontend_is_told(
    laptop: Laptop,
    select: Callable[[str], None],
    fault: Callable[[Laptop], None],
    said: str,
) -> None:
    fault(laptop)
    select("direct")
    assert said in launch()


def test_a_launcher_folder_that_only_this_machine_has_is_told(
    laptop: Laptop, select: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    select("direct")
    monkeypatch.setenv("REMOTE_HTTP_LAUNCHER_DIR", str(laptop.path / "elsewhere"))
    assert "REMOTE_HTTP_LAUNCHER_DIR is set to" in launch()


@pytest.mark.longer
def test_a_service_that_ends_at_its_start_is_told_with_the_end_of_its_log(
    laptop: Laptop, select: Callable[[str], None]
) -> None:
    with socket.create_server((ADDRESS, 0)) as taken:
        port = taken.getsockname()[1]
        laptop.change("port_start", port)
        laptop.change("port_end", port)
        select("direct")
        text = launch()
    assert "hashserver-direct-rw-testproject.log on frontend, ends with:\n" in text
    assert text.rstrip().endswith(f"RuntimeError: No free port available in range {port}-{port}")


@pytest.mark.longer
def test_a_launch_that_takes_too_long_is_ended_and_says_how_far_it_came(
    laptop: Laptop, select: Callable[[str], None]
) -> None:
    program = laptop.frontend.home / "miniforge3" / "envs" / "seamless" / "bin" / "hashserver"
    program.write_text("#!/bin/sh\nexec sleep 1000\n")
    select("direct")
    this_process().settings = Settings(launch_timeout=8.0)
    try:
        text = launch()
    finally:
        this_process().settings = None
    assert "it was not done within 8 s; it was at: waiting for the service to start" in text
    assert "SEAMLESS_REMOTE_LAUNCH_TIMEOUT" in text
    assert os.environ["HOME"] == str(laptop.path)
    # Its service was started, and is the frontend's.
    assert not laptop.processes()
