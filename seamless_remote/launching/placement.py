"""Which service is meant: of which cluster, for which project and stage of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .launch import Launch, LaunchDict


@dataclass(frozen=True, slots=True)
class Placement:
    """The place of a launched service in the configuration; None for a part that is not used."""

    cluster: str
    project: str
    subproject: str | None = None
    stage: str | None = None
    substage: str | None = None

    @classmethod
    def of(
        cls,
        cluster: str | None = None,
        project: str | None = None,
        subproject: str | None = None,
        stage: str | None = None,
        substage: str | None = None,
    ) -> Placement:
        """A placement whose missing parts (None) are the currently selected ones.

        seamless_config.ConfigurationError: no cluster or no project is selected.
        """
        from seamless_config.select import get_current

        found = get_current(cluster, project, subproject, stage, substage)
        return cls(found[0], found[1], *(part or None for part in found[2:]))

    def launch(self, tool: str, *, mode: str | None = None, substage: bool = False) -> Launch:
        """The launch of a tool of seamless_config (such as `hashserver`) at this place.

        `mode` is `ro` or `rw` for the tools that have one; `substage` says that the tool has one.
        """
        arguments: dict[str, Any] = {
            "cluster": self.cluster,
            "project": self.project,
            # Not None: that would stand for whatever is selected at the time of the launch.
            "subproject": self.subproject or "",
            "stage": self.stage or "",
        }
        if substage:
            arguments["substage"] = self.substage or ""

        def configure() -> LaunchDict:
            from seamless_config import ConfigurationError, tools
            from seamless_config.cluster import get_cluster

            try:
                get_cluster(self.cluster)
            except KeyError:
                raise ConfigurationError(f"cluster {self.cluster!r} is not defined") from None
            make = getattr(tools, f"configure_{tool}")
            made: LaunchDict = make(**arguments) if mode is None else make(mode, **arguments)
            return made

        # A store's address is in the launch parameters of jobservers; a Dask cluster's own needs a
        # range of ports.
        return Launch(f"the {tool} of {self}", configure, keeps_port=mode is not None)

    def __str__(self) -> str:
        parts = [self.project, self.subproject, self.stage, self.substage]
        return f"{'/'.join(part for part in parts if part)} on {self.cluster}"
