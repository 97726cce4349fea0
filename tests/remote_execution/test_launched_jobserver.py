"""What is promised of a jobserver that is launched, when it dies."""

from __future__ import annotations

import json
import os
import signal
import threading
from pathlib import Path

from services import Home, wait_until

JOB = """
import json, os
import seamless, seamless.config
from seamless.transformer import delayed
from seamless_remote import current_nursery


@delayed
def job(folder):
    import os, time, uuid
    open(os.path.join(folder, f"ran-{uuid.uuid4().hex}"), "w").close()
    while not os.path.exists(os.path.join(folder, "go")):
        time.sleep(0.02)
    return 42


if __name__ == "__main__":
    seamless.config.init()
    assert job(os.environ["SIGNS"]).run() == 42
    services = current_nursery().snapshot().as_dict()["services"]
    (retries,) = [s["clients"][0]["retries"] for s in services if s["name"] == "jobserver_remote"]
    print(json.dumps(retries))
    seamless.close()
"""


def test_a_launched_jobserver_that_is_killed_in_mid_job_is_launched_again_and_gets_it_again(
    home: Home, tmp_path: Path
) -> None:
    home.configure(level=3, remote="jobserver")
    signs = tmp_path / "signs"
    signs.mkdir()

    def kill() -> None:
        wait_until(lambda: list(signs.iterdir()))
        os.killpg(home.service_pid("jobserver"), signal.SIGKILL)
        (signs / "go").touch()

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        program = home.run(JOB, env={"SIGNS": str(signs)}, warnings=("default",))
    finally:
        killer.join()
    assert json.loads(program.stdout.splitlines()[-1]) == 1
    assert len(list(signs.glob("ran-*"))) == 2


AFTER_DEATHS = """
import json, os, signal
from pathlib import Path
import seamless, seamless.config
from seamless.transformer import delayed


@delayed
def job(folder, number):
    import os, uuid
    open(os.path.join(folder, f"ran-{number}-{uuid.uuid4().hex}"), "w").close()
    return number + 1


if __name__ == "__main__":
    seamless.config.init()
    assert job(os.environ["SIGNS"], 1).run() == 2
    for tool in ("hashserver", "database"):
        (state,) = Path.home().glob(f".remote-http-launcher/server/{tool}-*.json")
        os.kill(json.loads(state.read_text())["pid"], signal.SIGKILL)
    assert job(os.environ["SIGNS"], 2).run() == 3
    seamless.close()
"""


def test_a_launched_jobserver_goes_on_with_stores_that_were_killed_and_launched_again(
    home: Home, tmp_path: Path
) -> None:
    home.configure(level=3, remote="jobserver")
    signs = tmp_path / "signs"
    signs.mkdir()
    home.run(AFTER_DEATHS, env={"SIGNS": str(signs)}, warnings=("default",))
    # The client would compute a result itself that the jobserver could not store.
    assert sorted(sign.name[:5] for sign in signs.iterdir()) == ["ran-1", "ran-2"]
