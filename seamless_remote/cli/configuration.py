"""Activates clients according to SEAMLESS_CACHE, SEAMLESS_REMOTE_CLIENTS or the configuration."""

from __future__ import annotations

import logging
import os

from ..errors import RemoteError
from .arguments import Selection
from .clients_variable import NAME, malformed, parse_clients
from .statuses import Failure, Status

logger = logging.getLogger(__name__)

_LONGEST_PATH = 4000
"""In bytes; the system takes 4,095, with the name of the file."""


def configure(project: Selection | None, stage: Selection | None, *, results: bool) -> None:
    """Activate the buffer clients, and with `results` the database clients. Launches nothing.

    Raises:
        Failure: no services are configured, or the configuration is malformed.
        RemoteError: a service cannot be launched.
    """
    import yaml
    from seamless_config import ConfigurationError

    try:
        _configure(project, stage, results)
    except (Failure, RemoteError):
        raise
    except OSError as exc:
        reason = exc.strerror or str(exc)
        raise _failure(f"cannot read {exc.filename or 'the configuration'}: {reason}") from exc
    except yaml.YAMLError as exc:
        raise _failure(f"the configuration is not YAML: {exc}") from exc
    except (ConfigurationError, ValueError) as exc:
        raise _failure(f"the configuration is wrong: {exc}") from exc
    except Exception as exc:
        # seamless-config takes the files to have the form that it expects: whatever Python raises
        # where they have another one comes from there.
        raise _failure(f"the configuration is wrong: {_fault(exc)}") from exc


def _configure(project: Selection | None, stage: Selection | None, results: bool) -> None:
    import seamless_config

    defined = os.environ.get(NAME)
    # SEAMLESS_CACHE has precedence; `load_config_files` evaluates it.
    if defined is not None and seamless_config.get_seamless_cache() is None:
        if project is not None or stage is not None:
            logger.warning("--project and --stage have no effect while %s is set", NAME)
        _use_defined_clients(defined)
        return
    # Not with `seamless.config.init()`, which also starts the configured jobserver, Dask cluster or
    # worker processes, and lets a project in the files override the one on the command line.
    _load(project, stage)
    _activate(results)


def _use_defined_clients(text: str) -> None:
    from seamless_config import set_remote_clients

    clients = parse_clients(text)
    try:
        # As `set_remote_clients_from_env` does, except that it swallows errors.
        set_remote_clients(clients, in_remote=True)
    except (TypeError, ValueError) as exc:
        raise malformed(str(exc)) from exc


def _load(project: Selection | None, stage: Selection | None) -> None:
    import seamless_config
    from seamless_config import select
    from seamless_config.config_files import load_config_files

    if seamless_config.get_seamless_cache() is None:
        require_home()
        seamless_config.set_workdir(_current_folder())
    # The files' `stage` sections depend on the stage, so select it before loading them; the files
    # select a project, so override that afterwards.
    if stage is not None:
        select.select_stage(stage.name)
        select.select_substage(stage.sub)
    load_config_files()
    if project is not None:
        select.select_project(project.name)
        select.select_subproject(project.sub)
    # Recomputing a buffer for display is not a run to keep a record of.
    select.select_record(False)


def _activate(results: bool) -> None:
    from seamless_config import select
    from seamless_config.cluster import get_cluster

    from .. import buffer_remote, database_remote

    cluster = select.get_selected_cluster()
    if cluster is None:
        raise _failure(
            "no cluster is selected; add 'cluster: NAME' to seamless.profile.yaml in this folder"
        )
    if not select.get_persistent():
        raise _failure("the configuration has 'persistent: false', so there is no storage")
    try:
        get_cluster(cluster)
    except KeyError as exc:
        raise _failure(
            f"the cluster {cluster!r} is not defined in ~/.seamless/clusters.yaml"
        ) from exc
    buffer_remote.activate_unlaunched()
    if results:
        database_remote.activate_unlaunched()


def require_home() -> None:
    """Failure if nobody can tell where the home folder is.

    The clusters are defined there, and launched services are noted.
    """
    if not os.path.isabs(os.path.expanduser("~")):
        raise _failure(
            f"HOME is not set, and user {os.getuid()} has no entry in the list of users, so there "
            "is no folder for ~/.seamless/clusters.yaml and the records of services; set HOME"
        )


def _current_folder() -> str:
    """The current folder. Failure if no path leads to the files in it."""
    try:
        path = os.getcwd()
    except FileNotFoundError as exc:
        raise _failure("the current folder has been removed") from exc
    if len(os.fsencode(path)) > _LONGEST_PATH:
        raise _failure("the path of the current folder is too long to read a file in it")
    return path


def _fault(error: Exception) -> str:
    """What the files lack, by the error of Python that it has led to."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, KeyError) and error.args:
        return f"{error.args[0]!r} is missing"
    fault = "a part of it does not have the form that is expected there"
    return f"{fault}: {error}" if str(error) else fault


def _failure(reason: str) -> Failure:
    return Failure(
        Status.CONFIGURATION,
        f"{reason} (alternatively, set SEAMLESS_CACHE to a folder, or {NAME} to running services)",
    )
