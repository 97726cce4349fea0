"""What comes from outside (URLs, names, the environment) may be odd: it harms no service.

What makes no sense is refused where it is defined; whatever else goes wrong is a typed error.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import socket
import threading
from collections.abc import Callable
from typing import Any

import anyio
import anyio.to_thread
import pytest
from hosts import Host
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from loops import LoopThread
from many_calls import all_at_once, look_ups, reads
from registering import use_buffers, use_databases
from seamless import Checksum
from services import Service

from seamless_remote import ServiceError, Settings, buffer_remote, database_remote, jobserver_remote
from seamless_remote.client import close_all_clients
from seamless_remote.clients import circuit

UNKNOWN = Checksum("ab" * 32)
ODD = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.differing_executors]
numbers = itertools.count()

VARIABLES = [
    "SEAMLESS_REMOTE_CONNECT_TIMEOUT",
    "SEAMLESS_REMOTE_READ_TIMEOUT",
    "SEAMLESS_REMOTE_TOTAL_TIMEOUT",
    "SEAMLESS_REMOTE_HEALTHCHECK_TIMEOUT",
    "SEAMLESS_DATABASE_MAX_INFLIGHT",
    "SEAMLESS_ALLOW_REMOTE_CLIENTS_IN_WORKER",
    "SEAMLESS_DEBUG_REMOTE_DB",
    "SEAMLESS_CLIENT_DEBUG",
    "SEAMLESS_REMOTE_PROXY",
]
TEXTS = st.one_of(
    st.text(max_size=12),
    st.integers().map(str),
    st.floats().map(str),
    st.sampled_from(["none", "inf", "-inf", "nan", "1e308", "1_0", "\u0661\u0662", "9" * 5000]),
)


@settings(max_examples=300, deadline=None, database=None)
@given(environ=st.dictionaries(st.sampled_from(VARIABLES), TEXTS))
def test_any_environment_gives_settings_that_make_sense(environ: dict[str, str]) -> None:
    found = Settings.from_environment(environ)
    for field in ("connect_timeout", "read_timeout", "total_timeout", "healthcheck_timeout"):
        seconds = getattr(found, field)
        assert seconds is None or 0 < seconds < math.inf
    assert type(found.database_max_inflight) is int
    assert found.database_max_inflight >= 0
    flags = (found.allow_in_worker, found.debug_database, found.debug_connections)
    assert {*map(type, flags)} == {bool}
    assert found.proxy is None or found.proxy.strip() == found.proxy != ""
    others = {name.removeprefix("SEAMLESS_"): text for name, text in environ.items()}
    assert Settings.from_environment(others) == Settings()


@pytest.mark.parametrize("seconds", ["1e308", "99999999999", "1e-320", "inf"])
def test_calls_work_with_any_timeout_from_the_environment_that_is_long_enough(
    seconds: str,
    host_with: Callable[[Settings], Host],
    shared_hashserver: Service,
    shared_database: Service,
) -> None:
    """One that is too short is a typed error."""
    found = Settings.from_environment(dict.fromkeys(VARIABLES[:4], seconds))
    chosen = dataclasses.replace(found, database_max_inflight=10**30, max_tries=1)
    folder = shared_hashserver.directory

    async def main() -> None:
        use_buffers(shared_hashserver)
        use_databases(shared_database)
        calls = [*reads(folder, 3), *look_ups(3)]
        if seconds == "1e-320":
            for call in calls:
                with pytest.raises(ServiceError):
                    await call()
        else:
            await all_at_once(calls)

    host_with(chosen).run(main)


@pytest.fixture
def no_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """No name is known, and no address is reached by one."""

    def look_up(host: Any, *args: Any, **options: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setattr(circuit, "OPENS_AFTER", math.inf)


HOSTS = st.one_of(
    st.text(max_size=20),
    st.text(alphabet="ab.-_%[]:@/\\ \u00e4\u3002\0", max_size=20),
    st.sampled_from(["a..b", ".", "..", "a" * 64, ".".join(["a" * 60] * 5), "xn--", "[::1", "%"]),
)


def test_any_url_is_refused_where_it_is_defined_or_ends_in_a_typed_error(
    no_names: None,
    hosted_settings: Callable[[Settings], None],
    loop_threads: Callable[[str], LoopThread],
) -> None:
    hosted_settings(Settings(max_tries=1, grace_period=0.5))
    loop = loop_threads("asyncio")
    defined = 0

    @settings(max_examples=150, deadline=None, database=None, suppress_health_check=ODD)
    @given(scheme=st.sampled_from(["http", "https"]), host=HOSTS, port=st.integers(0, 70000))
    @example(scheme="http", host="name-that-nobody-has", port=80)
    def check(scheme: str, host: str, port: int) -> None:
        nonlocal defined
        url = f"{scheme}://{host}:{port}"
        name = f"odd-{next(numbers)}"
        try:
            buffer_remote.define_extern_client(name, "hashserver", url=url)
        except ValueError:
            for module, type_ in ((database_remote, "database"), (jobserver_remote, "jobserver")):
                with pytest.raises(ValueError, match="is not a service URL"):
                    module.define_extern_client(name, type_, url=url)
            return
        defined += 1
        buffer_remote.activate(no_main=True, extern_clients=[name])
        with pytest.raises(ServiceError, match="cannot connect to"):
            loop.run(buffer_remote.get_buffer, UNKNOWN)

    check()
    assert defined
    buffer_remote.activate(no_main=True)


def test_a_name_that_does_not_resolve_or_hangs_keeps_no_other_source_from_being_asked(
    host_with: Callable[[Settings], Host],
    shared_hashserver: Service,
    shared_database: Service,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    end, hanging = threading.Event(), threading.Event()
    real = socket.getaddrinfo

    def look_up(name: Any, *args: Any, **options: Any) -> Any:
        if name == "hangs.invalid" and not options.get("flags"):
            hanging.set()
            end.wait()
        if str(name).endswith(".invalid"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return real(name, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)

    async def main() -> None:
        use_buffers("http://nobody.invalid", shared_hashserver)
        use_databases("http://hangs.invalid")
        folder = shared_hashserver.directory
        async with anyio.create_task_group() as group:
            group.start_soon(all_at_once, look_ups(20))
            await anyio.to_thread.run_sync(hanging.wait)
            await all_at_once(reads(folder, 5))
            with pytest.raises(ServiceError, match=r"nobody\.invalid"):
                await buffer_remote.get_buffer(UNKNOWN)
            use_databases("http://nobody.invalid", shared_database)
            known = Checksum("cd" * 32)
            assert await database_remote.set_transformation_result(known, known) is True
            assert await database_remote.get_transformation_result(known) == known
            group.cancel_scope.cancel()

    try:
        host_with(Settings(max_tries=1)).run(main)
    finally:
        end.set()


PROXIES = [
    {"HTTP_PROXY": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9"},
    {"https_proxy": "socks5://127.0.0.1:9", "ALL_PROXY": "socks5h://127.0.0.1:9"},
    {"NO_PROXY": "fe80::/10", "no_proxy": "fe80::/10,[::1]:x,*"},
    {"HTTP_PROXY": "nonsense", "HTTPS_PROXY": "http://[", "ALL_PROXY": "\u00e4://"},
]


@pytest.mark.parametrize("environ", PROXIES)
def test_variables_about_proxies_are_not_for_services(
    environ: dict[str, str],
    host_with: Callable[[Settings], Host],
    nowhere: str,
    shared_hashserver: Service,
    shared_database: Service,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, text in environ.items():
        monkeypatch.setenv(name, text)
    secure = nowhere.replace("http:", "https:")

    async def main() -> None:
        # https first: what goes wrong with it does not keep the next source from being asked.
        use_buffers(secure, shared_hashserver)
        use_databases(shared_database)
        await all_at_once([*reads(shared_hashserver.directory, 5), *look_ups(5)])
        use_databases(secure)
        with pytest.raises(ServiceError, match=r"cannot connect to https://.*refused"):
            await look_ups(1)[0]()

    host_with(Settings(max_tries=1)).run(main)


def test_any_text_for_a_proxy_is_a_typed_error_and_harms_no_service_of_this_machine(
    no_names: None,
    hosted_settings: Callable[[Settings], None],
    shared_hashserver: Service,
    monkeypatch: pytest.MonkeyPatch,
    loop_threads: Callable[[str], LoopThread],
) -> None:
    loop = loop_threads("trio")
    (read,) = reads(shared_hashserver.directory, 1)

    @settings(max_examples=40, deadline=None, database=None, suppress_health_check=ODD)
    @given(proxy=st.text(min_size=1, max_size=20) | HOSTS.map(lambda host: f"http://{host}:1"))
    @example(proxy="socks5://127.0.0.1:9")
    @example(proxy="https://127.0.0.1:9")
    @example(proxy="http://127.0.0.1:0")
    def check(proxy: str) -> None:
        found = Settings.from_environment({"SEAMLESS_REMOTE_PROXY": proxy})
        hosted_settings(dataclasses.replace(found, max_tries=1, grace_period=0.5))
        use_buffers(shared_hashserver.url.replace("127.0.0.1", "localhost"))
        loop.run(read)
        use_databases("http://elsewhere.example", "https://elsewhere.example")
        if found.proxy is not None:
            with pytest.raises(ServiceError, match="cannot connect to http://elsewhere"):
                loop.run(database_remote.get_transformation_result, UNKNOWN)

    check()
    close_all_clients()
