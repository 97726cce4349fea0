"""A service on a frontend works on the folder that was asked for, whatever runs there already."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from laptop import Laptop
from network_path import Way

from seamless_remote.launching.client_record import ClientRecord
from seamless_remote.launching.frontend_launch import FrontendLaunchError, launch_on_frontend
from seamless_remote.launching.placement import Placement


@pytest.fixture
def launch_dict(select: Callable[[str], None]) -> dict[str, Any]:
    select("direct")
    return Placement.of().launch("hashserver", mode="rw").configure()


def launch(launch_dict: dict[str, Any], folder: Path | str) -> int:
    in_effect = {**launch_dict, "workdir": str(folder)}
    return int(launch_on_frontend("a hashserver", in_effect)["port"])


def test_each_folder_has_its_service_with_and_without_a_record_of_it(
    laptop: Laptop, launch_dict: dict[str, Any]
) -> None:
    one, two = laptop.frontend.home / "one", laptop.frontend.home / "two"
    ports = [launch(launch_dict, one), launch(launch_dict, two)]
    assert ports[0] != ports[1]
    # From the records, without a login.
    laptop.network.put(Way.CLOSED)
    assert [launch(launch_dict, one), launch(launch_dict, f"{two}/")] == ports
    laptop.network.put(Way.OPEN)
    for record in (laptop.state / "client").glob("*.json"):
        record.unlink()
    assert [launch(launch_dict, two), launch(launch_dict, "~/one")] == ports[::-1]
    served = sorted(each["workdir"] for each in laptop.there.services().values())
    assert served == [str(one), str(two)]


def test_a_record_is_for_the_folders_that_it_names(launch_dict: dict[str, Any]) -> None:
    record = ClientRecord.of(launch_dict)
    record.path.parent.mkdir(parents=True, exist_ok=True)
    for folders, fits in ((["~/a/"], True), (["~/b"], False), ("?", True), ([3], True)):
        content = {"hostname": "127.0.0.1", "port": 9, "folders": folders}
        record.path.write_text(json.dumps(content))
        assert record.is_for(("~/a",)) is fits


@pytest.mark.longer
def test_a_service_of_another_folder_under_the_folders_own_key_is_an_error_that_names_both(
    laptop: Laptop, launch_dict: dict[str, Any]
) -> None:
    one, two = laptop.frontend.home / "one", laptop.frontend.home / "two"
    launch(launch_dict, one)
    launch(launch_dict, two)
    (own,) = (laptop.there.state / "server").glob("*--folder-*.json")
    status = json.loads(own.read_text())
    own.write_text(json.dumps({**status, "workdir": "/elsewhere"}))
    for record in (laptop.state / "client").glob("*.json"):
        record.unlink()
    with pytest.raises(FrontendLaunchError, match=f"serves /elsewhere, not {two}"):
        launch(launch_dict, two)
