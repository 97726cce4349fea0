"""Definitions and activations that make no sense: an error that names what is wrong with them."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from fault_proxy import FaultProxy
from nursery_runs import BACKENDS, HURRIED, in_nursery
from request_kinds import checksum_of, use
from seamless import Buffer
from services import Service
from wrong_inputs import NO_DIRECTORIES, NO_NAMES, NO_TYPES, NO_URLS

from seamless_remote import buffer_remote, database_remote
from seamless_remote.buffer_client import BufferClient
from seamless_remote.database_client import DatabaseClient
from seamless_remote.errors import ServiceError

MODULES = {"buffer_remote": buffer_remote, "database_remote": database_remote}
TYPE_OF = {buffer_remote: "hashserver", database_remote: "database"}
URL = "http://127.0.0.1:1"

NO_EXTERN_CLIENTS: dict[str, Any] = {
    "None": None,
    "a number": 5,
    "an unknown name": ["nobody"],
    "a name that is no text": [5],
    "a None": [None],
    "a list in the list": [["known"]],
    "a dict in the list": [{"name": "known"}],
    "another case": ["KNOWN"],
    "a blank": ["known "],
    "a name in place of a list": "known",
    "one unknown among known": ["known", "nobody"],
    "bytes": [b"known"],
    "a URL in place of a name": [URL],
}

PLACE = {"cluster": "c", "project": "p", "subproject": "", "stage": ""}

NO_LAUNCHED_CLIENTS: dict[str, Any] = {
    "None": None,
    "a number": 5,
    "a dict in place of a list": PLACE,
    "a None in the list": [None],
    "a number in the list": [5],
    "a name in the list": ["c"],
    "a list in the list": [["c", "p"]],
    "an unknown key": [{**PLACE, "bogus": 1}],
    "a misspelt key": [{**PLACE, "read_only": True}],
    "a key that is no text": [{**PLACE, 5: 1}],
    "a url for a key": [{**PLACE, "url": URL}],
    "an unknown cluster": [{**PLACE, "cluster": "nowhere"}],
    "a number for a cluster": [{**PLACE, "cluster": 5}],
    "a list for a cluster": [{**PLACE, "cluster": ["c"]}],
    "bytes for a cluster": [{**PLACE, "cluster": b"c"}],
    "a number for a project": [{**PLACE, "project": 5}],
    "a list for a project": [{**PLACE, "project": ["p"]}],
    "a dict for a project": [{**PLACE, "project": {}}],
    "a number for a subproject": [{**PLACE, "subproject": 5}],
    "a list for a stage": [{**PLACE, "stage": ["s"]}],
    "True for a stage": [{**PLACE, "stage": True}],
    "one twice": [PLACE, PLACE],
}


def define(module: ModuleType, **changes: Any) -> None:
    arguments = {"name": "x", "type_": TYPE_OF[module], "url": URL, **changes}
    module.define_extern_client(arguments.pop("name"), arguments.pop("type_"), **arguments)


def fault_of(call: Callable[[], Any], wrong: Any) -> str | None:
    """What is wrong with how a call takes a wrong value; None where nothing is."""
    try:
        outcome = call()
    except (TypeError, ValueError, RuntimeError) as exc:
        message = str(exc)
    except Exception as exc:
        return f"raised {exc!r}"
    else:
        return f"was taken, for {outcome!r}"
    if "secret" in message:
        return f"is told with its password: {message}"
    if any(each in message for each in _signs(wrong)):
        return None
    return f"is not named by {message!r}"


def _signs(wrong: Any) -> list[str]:
    """What a message may show of a wrong value: itself, its type, or one of its parts."""
    signs = [repr(wrong)[:20], type(wrong).__name__]
    if isinstance(wrong, list) and wrong:
        signs += _signs(wrong[-1])
    if isinstance(wrong, dict):
        signs += [str(part) for pair in wrong.items() for part in pair if part not in ("", True)]
    if isinstance(wrong, str):
        signs += [wrong or "''"]
        signs += ["user name or a password"] if "@" in wrong else []
    return signs


def _are_keywords(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(key, str) for key in value)


Attempts = list[tuple[str, Callable[[], Any], Any]]


def attempts_at(module: ModuleType) -> Attempts:
    """Every wrong definition and activation: its name, the call, and the value it must name."""
    make = BufferClient if module is buffer_remote else DatabaseClient
    found: Attempts = []
    for name, url in NO_URLS.items():
        found.append((f"url: {name}", lambda url=url: define(module, url=url), url))
        found.append((f"client's url: {name}", lambda url=url: make(url=url), url))
    for name, value in NO_NAMES.items():
        found.append((f"name: {name}", lambda value=value: define(module, name=value), value))
    for name, value in NO_TYPES.items():
        found.append((f"type: {name}", lambda value=value: define(module, type_=value), value))
    for name, value in NO_EXTERN_CLIENTS.items():
        found.append(
            (
                f"extern clients: {name}",
                lambda value=value: module.activate(no_main=True, extern_clients=value),
                value,
            )
        )
    for name, value in NO_LAUNCHED_CLIENTS.items():
        found.append(
            (
                f"launched clients: {name}",
                lambda value=value: module.activate(no_main=True, extra_launched_clients=value),
                value,
            )
        )
        if isinstance(value, list) and len(value) == 1 and _are_keywords(value[0]):
            found.append(
                (
                    f"define_launched_client: {name}",
                    lambda value=value: module.define_launched_client(False, **value[0]),
                    value,
                )
            )
    for params in ({"a": 1}, [1], "params"):
        found.append(
            (f"params: {params!r}", lambda params=params: define(module, params=params), params)
        )
    if module is buffer_remote:
        for name, value in NO_DIRECTORIES.items():
            found.append(
                (
                    f"directory: {name}",
                    lambda value=value: define(
                        module, type_="bufferfolder", url=None, directory=value
                    ),
                    value,
                )
            )
    found.append(("no url", lambda: define(module, url=None), "x"))
    found.append(("a main client without a cluster", lambda: module.activate(), "cluster"))
    return found


@pytest.mark.parametrize("module", MODULES)
def test_a_wrong_definition_is_an_error_that_names_it_and_changes_nothing(
    module: str,
    shared_hashserver: Service,
    shared_database: Service,
    faulty: Callable[[Service], FaultProxy],
    tried: Callable[[str], None],
) -> None:
    chosen = MODULES[module]
    proxy = faulty(shared_hashserver if chosen is buffer_remote else shared_database)
    define(chosen, name="known", url=proxy.url)
    chosen.activate(no_main=True, extern_clients=["known"])
    before = chosen._registry.active()
    defined = chosen.inspect_extern_clients()
    faults = []
    for name, call, wrong in attempts_at(chosen):
        fault = fault_of(call, wrong)
        if fault is not None:
            faults.append(f"{name}: {fault}")
        tried(f"{module}: {name}")
    assert not faults, "\n".join(faults)
    assert chosen._registry.active() == before
    assert chosen.inspect_extern_clients() == defined
    assert not proxy.requests()


CONTENT = b"what the next source has"


def _missing(place: Path) -> None:
    """There is nothing."""


def _file(place: Path) -> None:
    place.write_bytes(CONTENT)


def _dangling(place: Path) -> None:
    place.symlink_to(place.parent / "nothing")


def _circle(place: Path) -> None:
    place.symlink_to(place)


def _pipe(place: Path) -> None:
    os.mkfifo(place)


def _unreadable(place: Path) -> None:
    place.mkdir(mode=0)


def _holding(make: Callable[[Path], None], suffix: str = "") -> Callable[[Path], None]:
    def harm(place: Path) -> None:
        wanted = checksum_of(CONTENT).hex()
        (place / wanted[:2]).mkdir(parents=True)
        make(place / wanted[:2] / (wanted + suffix))

    return harm


def _wrong(place: Path) -> None:
    place.write_bytes(b"other bytes")


def _half(place: Path) -> None:
    place.write_bytes(CONTENT[:5])


def _closed(place: Path) -> None:
    place.write_bytes(b"other bytes")
    place.chmod(0)


def _locked(place: Path) -> None:
    place.write_bytes(CONTENT[:5])
    place.with_name(place.name + ".LOCK").touch()


def _directory(place: Path) -> None:
    place.mkdir()


HARMED_FOLDERS: dict[str, Callable[[Path], None]] = {
    "a folder that is missing": _missing,
    "a file in place of the folder": _file,
    "a symlink to nothing": _dangling,
    "a symlink to itself": _circle,
    "a pipe in place of the folder": _pipe,
    "a folder that cannot be read": _unreadable,
    **{
        f"{name} under the name{suffix}": _holding(make, suffix)
        for suffix in ("", ".zst", ".gz")
        for name, make in {
            "a directory": _directory,
            "a symlink to nothing": _dangling,
            "a symlink to itself": _circle,
            "a pipe": _pipe,
            "other bytes": _wrong,
            "a half-written file": _half,
            "a locked half-written file": _locked,
            "a file that cannot be read": _closed,
        }.items()
    },
}


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_harmed_folder_is_passed_over_and_the_next_source_has_it(
    backend: str,
    tmp_path: Path,
    shared_hashserver: Service,
    tried: Callable[[str], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    wanted = checksum_of(CONTENT)

    async def body() -> None:
        use(buffer_remote, shared_hashserver.url)
        assert await buffer_remote.write_buffer(wanted, Buffer(CONTENT))
        (server,) = [each["name"] for each in buffer_remote.inspect_extern_clients()]
        for number, (name, harm) in enumerate(HARMED_FOLDERS.items()):
            place = tmp_path / str(number)
            harm(place)
            buffer_remote.define_extern_client("f", "bufferfolder", directory=str(place))
            buffer_remote.activate(no_main=True, extern_clients=["f", server])
            found = await buffer_remote.get_buffer(wanted)
            assert found is not None, name
            assert found.content == CONTENT, name
            assert await buffer_remote.get_buffer_lengths([wanted]) in ([len(CONTENT)], [5], [11])
            buffer_remote.activate(no_main=True, extern_clients=["f"])
            if "cannot be read" in name and os.geteuid() != 0:
                with pytest.raises(ServiceError, match="Permission denied"):
                    await buffer_remote.get_buffer(wanted)
            else:
                assert await buffer_remote.get_buffer(wanted) is None, name
            tried(f"folder: {name}")

    in_nursery(backend, HURRIED, body)
    for place in tmp_path.iterdir():
        if place.is_dir() and not place.is_symlink():
            place.chmod(stat.S_IRWXU)
