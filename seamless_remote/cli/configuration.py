"""Activates clients according to SEAMLESS_CACHE, SEAMLESS_REMOTE_CLIENTS or the configuration."""

from __future__ import annotations

import logging
import os

from .arguments import Selection
from .clients_variable import NAME, malformed, parse_clients
from .statuses import Failure, Status

logger = logging.getLogger(__name__)


def configure(project: Selection | None, stage: Selection | None, *, results: bool) -> None:
    """Activate the buffer clients, and with `results` the database clients.

    Failure if no services are configured, or if the configuration is malformed.
    """
    import seamless_config

    defined = os.environ.get(NAME)
    # SEAMLESS_CACHE has precedence; `load_config_files` evaluates it.
    if defined is not None and seamless_config.get_seamless_cache() is None:
        if project is not None or stage is not None:
            logger.warning("--project and --stage have no effect while %s is set", NAME)
        _use_defined_clients(defined)
    else:
        _use_configuration(project, stage, results)


def _use_defined_clients(text: str) -> None:
    from seamless_config import set_remote_clients

    clients = parse_clients(text)
    try:
        # As `set_remote_clients_from_env` does, except that it swallows errors.
        set_remote_clients(clients, in_remote=True)
    except (TypeError, ValueError) as exc:
        raise malformed(str(exc)) from exc


def _use_configuration(project: Selection | None, stage: Selection | None, results: bool) -> None:
    """Load the configuration files and activate the storage they define.

    Not with `seamless.config.init()`, which also starts the configured jobserver, Dask cluster or
    worker processes, and lets a project in the files override the one on the command line.
    """
    import yaml
    from seamless_config import ConfigurationError

    try:
        _load(project, stage)
    except OSError as exc:
        raise _failure(f"cannot read {exc.filename or 'the configuration'}: {exc}") from exc
    except yaml.YAMLError as exc:
        raise _failure(f"the configuration is not YAML: {exc}") from exc
    except (ConfigurationError, ValueError, TypeError, AssertionError, LookupError) as exc:
        raise _failure(f"the configuration is wrong: {_text(exc)}") from exc
    _activate(results)


def _load(project: Selection | None, stage: Selection | None) -> None:
    import seamless_config
    from seamless_config import select
    from seamless_config.config_files import load_config_files

    seamless_config.set_workdir(os.getcwd())
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
    from seamless_config import ConfigurationError, select
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
    try:
        buffer_remote.activate()
        if results:
            database_remote.activate()
    except (ConfigurationError, ValueError) as exc:
        raise _failure(str(exc)) from exc


def _text(error: Exception) -> str:
    """The text of an error. For a KeyError and its like the text means little without the type."""
    if isinstance(error, (ValueError, RuntimeError)):
        return str(error)
    return f"{type(error).__name__}: {error}"


def _failure(reason: str) -> Failure:
    return Failure(
        Status.CONFIGURATION,
        f"{reason} (alternatively, set SEAMLESS_CACHE to a folder, or {NAME} to running services)",
    )
