"""Settings are read from the environment once, and a malformed value ends nothing."""

from __future__ import annotations

import dataclasses
import logging
import os
import subprocess
import sys

import pytest

from seamless_remote import Settings

TIMEOUTS = {
    "SEAMLESS_REMOTE_CONNECT_TIMEOUT": "connect_timeout",
    "SEAMLESS_REMOTE_READ_TIMEOUT": "read_timeout",
    "SEAMLESS_REMOTE_TOTAL_TIMEOUT": "total_timeout",
    "SEAMLESS_REMOTE_HEALTHCHECK_TIMEOUT": "healthcheck_timeout",
    "SEAMLESS_REMOTE_LAUNCH_TIMEOUT": "launch_timeout",
}
FLAGS = {
    "SEAMLESS_ALLOW_REMOTE_CLIENTS_IN_WORKER": "allow_in_worker",
    "SEAMLESS_DEBUG_REMOTE_DB": "debug_database",
    "SEAMLESS_CLIENT_DEBUG": "debug_connections",
}
INFLIGHT = "SEAMLESS_DATABASE_MAX_INFLIGHT"


def test_an_empty_environment_gives_the_documented_defaults() -> None:
    settings = Settings.from_environment({})
    assert settings == Settings()
    assert (settings.connect_timeout, settings.read_timeout) == (10, 1200)
    assert (settings.total_timeout, settings.healthcheck_timeout) == (None, 10)
    assert settings.database_max_inflight == 30
    assert not settings.allow_in_worker


@pytest.mark.parametrize(("variable", "field"), TIMEOUTS.items())
@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("5", 5.0),
        ("0.25", 0.25),
        (" 7 ", 7.0),
        ("1e3", 1000.0),
        ("none", None),
        ("None", None),
        ("OFF", None),
        ("false", None),
        ("", None),
        ("  ", None),
        ("0", None),
        ("-3", None),
        ("inf", None),
    ],
)
def test_a_timeout_is_a_number_of_seconds_or_none(
    variable: str, field: str, text: str, seconds: float | None, caplog: pytest.LogCaptureFixture
) -> None:
    assert getattr(Settings.from_environment({variable: text}), field) == seconds
    assert not caplog.records


@pytest.mark.parametrize(("text", "bound"), [("1", 1), ("0", 0), ("500", 500), (" 8 ", 8)])
def test_the_bound_on_database_requests_is_a_whole_number(text: str, bound: int) -> None:
    assert Settings.from_environment({INFLIGHT: text}).database_max_inflight == bound


@pytest.mark.parametrize(("variable", "field"), FLAGS.items())
@pytest.mark.parametrize(
    ("text", "value"),
    [("1", True), ("true", True), ("YES", True), ("0", False), ("no", False), ("", False)],
)
def test_a_flag_is_a_yes_or_a_no(variable: str, field: str, text: str, value: bool) -> None:
    assert getattr(Settings.from_environment({variable: text}), field) is value


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        *((variable, text) for variable in TIMEOUTS for text in ("soon", "1,5", "10s", "nan")),
        *((INFLIGHT, text) for text in ("many", "-1", "2.5", "", "1e3")),
        *((variable, text) for variable in FLAGS for text in ("maybe", "2", "ja")),
    ],
)
def test_a_malformed_value_is_logged_with_its_name_and_the_default_is_used(
    variable: str, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="seamless_remote.settings"):
        assert Settings.from_environment({variable: text}) == Settings()
    (record,) = caplog.records
    assert variable in record.getMessage()
    assert repr(text) in record.getMessage()
    assert "using" in record.getMessage()


@pytest.mark.parametrize(
    ("variable", "name"),
    [
        ("SEAMLESS_DEBUG_REMOTE_DB", "seamless_remote.database_remote"),
        ("SEAMLESS_CLIENT_DEBUG", "seamless_remote.transport"),
    ],
)
def test_a_debug_variable_shows_what_its_part_does_on_stderr(variable: str, name: str) -> None:
    code = (
        "import logging; from seamless_remote.settings import Settings, enable_debug_logging\n"
        "for _ in range(2): enable_debug_logging(Settings.from_environment())\n"
        f"logging.getLogger('{name}.part').debug('seen')\n"
        "logging.getLogger('seamless_remote.nursery').debug('not seen')"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, variable: "1"},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert run.stdout == ""
    assert run.stderr.count("seen") == 1
    assert name in run.stderr


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().read_timeout = 1.0  # type: ignore[misc]
