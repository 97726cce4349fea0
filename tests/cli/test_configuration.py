"""How the tools find their services, and what they report if they cannot."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from command import TIMEOUT, Command, checksum_of, end, store
from services import Home

from seamless_remote.cli.statuses import Status

CONTENT = b"a configured buffer\n"
CHECKSUM = checksum_of(CONTENT)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("http://localhost:5000", "not JSON"),
        ("[" * 100_000, "nested too deeply"),
        ("null", "it is null, not an object"),
        ("[]", "it is a list, not an object"),
        ("3", "it is a number, not an object"),
        ("{}", "lists no buffer client"),
        ('{"buffer": []}', "lists no buffer client"),
        ('{"buffers": []}', "'buffers' is not one of"),
        ('{"buffer": {}}', "'buffer' is an object, not a list"),
        ('{"buffer": ["http://localhost:5000"]}', "buffer[0] is a string"),
        ('{"buffer": [{}]}', "buffer[0] has no remote_url and no remote_directory"),
        ('{"buffer": [{"url": "http://localhost:5000"}]}', "buffer[0] has no remote_url"),
        ('{"buffer": [{"remote_url": 5000}]}', "remote_url of buffer[0] is 5000"),
        ('{"buffer": [{"remote_url": ""}]}', 'remote_url of buffer[0] is ""'),
        ('{"buffer": [{"remote_url": "localhost:5000"}]}', "localhost:5000"),
        ('{"buffer": [{"remote_url": "ftp://localhost"}]}', "ftp://localhost"),
        ('{"buffer": [{"remote_url": "http://h:1", "readonly": 1}]}', "readonly of buffer[0]"),
        (
            '{"buffer": [{"remote_url": "http://h:1"}], "database": [{"remote_directory": "x"}]}',
            "database[0] has no remote_url",
        ),
    ],
)
def test_malformed_remote_clients_are_one_clear_line(
    bare_tool: Command, value: str, reason: str
) -> None:
    ended = bare_tool.resolve(CHECKSUM, env={"SEAMLESS_REMOTE_CLIENTS": value})
    assert (ended.status, ended.stdout) == (Status.CONFIGURATION, b"")
    assert "SEAMLESS_REMOTE_CLIENTS is malformed: " in ended.line()
    assert reason in ended.line()


def test_options_without_effect_are_pointed_out(tool: Command, store_folder: Path) -> None:
    ended = tool.resolve(store(store_folder, CONTENT), "--project", "p", "--stage", "s")
    assert (ended.status, ended.stdout) == (0, CONTENT)
    assert "no effect" in ended.line()


def test_no_configuration_at_all_is_one_clear_line(bare_tool: Command) -> None:
    ended = bare_tool.resolve(CHECKSUM)
    assert ended.status == Status.CONFIGURATION
    assert "no cluster is selected" in ended.line()


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"seamless.profile.yaml": [{"cluster": "moon"}], "seamless.yaml": [{"project": "p"}]},
         "the cluster 'moon' is not defined"),
        ({"seamless.profile.yaml": [{"cluster": "local"}]}, "No project defined"),
        ({"seamless.yaml": [{"projekt": "p"}]}, "unknown command 'projekt'"),
        ({"seamless.yaml": {"project": "p"}}, "expected a YAML list"),
        ({"seamless.yaml": "[unclosed"}, "is not YAML"),
        ({"seamless.yaml": [{"project": "a--b"}]}, "cannot contain '--'"),
        ({"seamless.yaml": "[" * 20_000}, "nested too deeply"),
        ({"seamless.yaml": "- stage"}, "does not have the form that is expected"),
        ({"seamless.yaml": "\x00"}, "is not YAML"),
    ],
)  # fmt: skip
def test_a_wrong_configuration_is_one_clear_line(
    home: Home, files: dict[str, object], reason: str
) -> None:
    for name in ("seamless.yaml", "seamless.profile.yaml"):
        (home.project / name).unlink(missing_ok=True)
    for name, content in files.items():
        text = content if isinstance(content, str) else yaml.safe_dump(content)
        (home.project / name).write_text(text)
    ended = _in(home).resolve(CHECKSUM)
    assert (ended.status, ended.stdout) == (Status.CONFIGURATION, b"")
    assert reason in ended.line()


@pytest.mark.parametrize(
    ("clusters", "reason"),
    [
        ("3", "does not have the form"),
        ("- a", "the configuration is wrong"),
        ("moon: 3", "does not have the form"),
        ("moon: {}", "'frontends' is missing"),
        ("moon: {type: local, frontends: [3]}", "does not have the form"),
        ("moon: {type: local, frontends: [{hashserver: 5}]}", "does not have the form"),
        ("{" * 20_000, "nested too deeply"),
    ],
)
def test_wrong_clusters_are_one_clear_line(home: Home, clusters: str, reason: str) -> None:
    (home.project / "seamless.yaml").write_text("- project: p\n- cluster: moon\n")
    (home.project / "seamless.profile.yaml").unlink(missing_ok=True)
    (home.path / ".seamless" / "clusters.yaml").write_text(clusters)
    ended = _in(home).resolve(CHECKSUM)
    assert (ended.status, ended.stdout) == (Status.CONFIGURATION, b"")
    assert reason in ended.line()


# As for a user that the system does not know (a container, a batch job).
HOMELESS = """
import os, pwd
del os.environ["HOME"]
def unknown(uid):
    raise KeyError(f"getpwuid(): uid not found: {uid}")
pwd.getpwuid = unknown
"""


def test_no_home_folder_is_one_clear_line(bare_tool: Command) -> None:
    ended = bare_tool.resolve(CHECKSUM, first=HOMELESS)
    assert ended.status == Status.CONFIGURATION
    assert "HOME is not set" in ended.line()


def test_without_a_home_folder_a_cache_is_read_and_nothing_launched(
    bare_tool: Command, store_folder: Path
) -> None:
    checksum = store(store_folder / "__TOPLEVEL__", CONTENT)
    env = {"SEAMLESS_CACHE": str(store_folder)}
    assert bare_tool.resolve(checksum, first=HOMELESS, env=env).stdout == CONTENT
    ended = bare_tool.resolve("ab" * 32, first=HOMELESS, env=env)
    assert ended.status == Status.CONFIGURATION
    assert "HOME is not set" in ended.line()


def test_without_a_home_folder_running_services_are_enough(
    tool: Command, store_folder: Path
) -> None:
    assert tool.resolve(store(store_folder, CONTENT), first=HOMELESS).stdout == CONTENT


def test_a_removed_current_folder_is_one_clear_line(bare_tool: Command) -> None:
    # The installed tool: `python -c` looks for modules in the current folder.
    tool = Path(sys.executable).with_name("seamless-resolve")
    script = f'mkdir gone; cd gone; rmdir ../gone; exec "{tool}" {CHECKSUM}'
    done = subprocess.run(
        ["sh", "-c", script],
        cwd=bare_tool.folder,
        env=bare_tool.env,
        capture_output=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert (done.returncode, done.stdout) == (Status.CONFIGURATION, b"")
    assert b"the current folder has been removed" in done.stderr


def test_a_configuration_without_storage_is_one_clear_line(home: Home) -> None:
    home.configure(level=2, profile=[{"persistent": False}])
    ended = _in(home).resolve(CHECKSUM)
    assert ended.status == Status.CONFIGURATION
    assert "persistent: false" in ended.line()


def test_a_cluster_of_the_configuration_is_launched(home: Home) -> None:
    ended = _in(home).fingertip(CHECKSUM, "--output", "out")
    assert ended.status == Status.UNKNOWN_CHECKSUM
    assert [key.partition("-")[0] for key in home.services()] == ["database", "hashserver"]


@pytest.mark.parametrize("tool", ["resolve", "fingertip"])
def test_a_buffer_in_the_folder_of_a_cluster_is_read_without_a_service(
    home: Home, tool: str
) -> None:
    _put(home.buffers)
    ended = _in(home).run(tool, CHECKSUM, "--output", "out")
    assert ended.status == 0
    assert (home.project / "out").read_bytes() == CONTENT
    assert not home.state.exists()


def test_the_command_line_wins_against_the_files(home: Home) -> None:
    folder = home.buffers.parent / "other" / "part" / "STAGE-first"
    _put(folder)
    tool = _in(home)
    assert tool.resolve(CHECKSUM).status == Status.UNKNOWN_CHECKSUM
    ended = tool.resolve(CHECKSUM, "--project", "other:part", "--stage", "first")
    assert (ended.status, ended.stdout) == (0, CONTENT)


@pytest.mark.parametrize("options", [{"execution": "spawn"}, {"level": 3}])
def test_only_the_storage_is_launched(home: Home, options: dict[str, object]) -> None:
    """The workers, jobserver or Dask cluster of the configuration are not."""
    home.configure(**options)  # type: ignore[arg-type]
    assert _in(home).resolve(CHECKSUM).status == Status.UNKNOWN_CHECKSUM
    assert [key.partition("-")[0] for key in home.services()] == ["hashserver"]


def test_warnings_of_the_configuration_stay_off_standard_error(home: Home) -> None:
    (home.project / "seamless.yaml").write_text(yaml.safe_dump([{"project": "p"}]))
    _put(home.buffers.parent / "p")
    ended = _in(home).resolve(CHECKSUM)
    assert ended.status == 0
    assert "execution" not in ended.stderr


def test_seamless_cache_is_enough(home: Home, tmp_path: Path) -> None:
    tool = Command(tmp_path / "work", {"HOME": str(home.path)})
    cache = tmp_path / "cache"
    for folder in (cache, cache / "__TOPLEVEL__"):
        _put(folder)
    ended = tool.resolve(CHECKSUM, env={"SEAMLESS_CACHE": str(cache)})
    assert (ended.status, ended.stdout) == (0, CONTENT)


def test_seamless_cache_goes_before_remote_clients(home: Home, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    _put(cache / "__TOPLEVEL__")
    env = {"SEAMLESS_CACHE": str(cache), "SEAMLESS_REMOTE_CLIENTS": "malformed"}
    assert _in(home).resolve(CHECKSUM, env=env).stdout == CONTENT


def test_a_service_that_cannot_be_launched_is_named(home: Home) -> None:
    definition = home.path / ".seamless" / "clusters.yaml"
    clusters = yaml.safe_load(definition.read_text())
    blocked = home.path / "file"
    blocked.touch()
    clusters[Home.cluster]["frontends"][0]["hashserver"]["bufferdir"] = str(blocked / "buffers")
    definition.write_text(yaml.safe_dump(clusters, sort_keys=False))
    ended = end(_in(home).start("resolve", CHECKSUM), traceback=True)
    assert ended.status == Status.UNREACHABLE
    lines = [line for line in ended.stderr.splitlines() if line.startswith("seamless-resolve")]
    (line,) = lines  # the other lines are the launcher's
    assert "could not launch the hashserver of testproject on local" in line
    assert "Not a directory" in line
    assert "Traceback" not in line


def test_verbose_says_what_is_done(tool: Command, store_folder: Path) -> None:
    ended = tool.resolve(store(store_folder, CONTENT), "--verbose")
    assert (ended.status, ended.stdout) == (0, CONTENT)
    assert "service buffer_remote started" in ended.stderr


def _in(home: Home) -> Command:
    return Command(home.project, home.env)


def _put(folder: Path) -> None:
    assert store(folder, CONTENT) == CHECKSUM
