"""The identity of a launched service: its cluster, its project and the project's stage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .launch import Launch, LaunchDict


@dataclass(frozen=True, slots=True)
class Placement:
    """The cluster, project and stage that a launched service belongs to. None: not used."""

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
        """A placement in which parts given as None are taken from the current selection.

        seamless_config.ConfigurationError if no cluster or no project is given or selected.
        """
        from seamless_config.select import get_current

        found = get_current(cluster, project, subproject, stage, substage)
        return cls(found[0], found[1], *(part or None for part in found[2:]))

    def launch(self, tool: str, *, mode: str | None = None, substage: bool = False) -> Launch:
        """A launch of `tool`, one of seamless-config's tools such as `hashserver`, placed here.

        `mode` is `ro` or `rw`, for the stores only. `substage`: the tool takes a substage.
        """
        arguments: dict[str, Any] = {
            "cluster": self.cluster,
            "project": self.project,
            # "" and not None, which seamless-config replaces by the selection at launch time.
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
                raise ConfigurationError(
                    f"cluster {self.cluster!r} is not defined; add it to ~/.seamless/clusters.yaml"
                ) from None
            make = getattr(tools, f"configure_{tool}")
            made: LaunchDict = make(**arguments) if mode is None else make(mode, **arguments)
            return made

        # A store (the tools with a mode) keeps its port, because running jobservers were given its
        # address. Others do not: a Dask scheduler needs a whole range of ports.
        return Launch(f"the {tool} of {self}", configure, keeps_port=mode is not None)

    def __str__(self) -> str:
        parts = [self.project, self.subproject, self.stage, self.substage]
        return f"{'/'.join(part for part in parts if part)} on {self.cluster}"
