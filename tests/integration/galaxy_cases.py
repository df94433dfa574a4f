"""Small builders for tests of the recorder: a user's Galaxy, a catalog, and questions to it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from biobank_core.catalog.port import Save
from biobank_core.config import load_settings
from biobank_core.galaxy import identity
from biobank_core.galaxy.client import GalaxyClient
from biobank_core.galaxy.live import LiveSource
from biobank_core.galaxy.recorder import Summary, record
from biobank_core.galaxy.rules import Rules
from biobank_core.lineage.follow import catch_up
from biobank_core.lineage.port import Direction, LineageIndex, Question
from biobank_core.model.ids import new_vid
from biobank_core.model.kinds import (
    Action,
    ActionSetup,
    DataCollection,
    DataObject,
    DataSample,
    Device,
    Study,
    Tube,
)
from biobank_core.stores import Stores, open_stores
from tests.integration.omero_settings import NewCatalog
from tests.servers.galaxy import GalaxyServer
from tests.servers.galaxy_user import GalaxyUser

SERVER = "test-galaxy"


@dataclass
class Lab:
    """A user of Galaxy with a history, and a catalog that their jobs are recorded in.

    `settings`: the environment variables that name the catalog.
    """

    user: GalaxyUser
    url: str
    history: str
    stores: Stores
    settings: Mapping[str, str] = field(repr=False)

    @property
    def environment(self) -> dict[str, str]:
        """What the command line is run with."""
        return {
            **os.environ,
            "GALAXY_URL": self.url,
            "GALAXY_API_KEY": self.user.key,
            **self.settings,
        }

    @property
    def index(self) -> LineageIndex:
        """The index, in step with the catalog: one beside it is fed by who asks it."""
        catch_up(self.stores.catalog, self.stores.index)
        return self.stores.index

    def record(self, **options: Any) -> Summary:
        """Record all of the user's jobs."""
        client = GalaxyClient.connect(self.url, self.user.key)
        return record(self.stores.catalog, LiveSource(client), server=SERVER, **options)

    def counted(self, **options: Any) -> tuple[Summary, int]:
        """The same, with the number of requests that it took, the connection's left out."""
        client = GalaxyClient.connect(self.url, self.user.key)
        before = client.request_count
        summary = record(self.stores.catalog, LiveSource(client), server=SERVER, **options)
        return summary, client.request_count - before

    def actions(self) -> list[Action]:
        """All actions that came from Galaxy."""
        found = (item.object for item in self.stores.catalog.find("Action"))
        return [obj for obj in found if isinstance(obj, Action) and obj.galaxy]

    def action(self, job_id: str) -> Action:
        """The action of a job."""
        [found] = self.stores.catalog.find("Action", {"galaxy.job_id": job_id})
        assert isinstance(found.object, Action)
        return found.object

    def uuid(self, hda_id: str) -> str:
        """The Dataset uuid of a copy of a dataset."""
        return str(self.user.client.datasets.show_dataset(hda_id)["uuid"])

    def vid(self, hda_id: str) -> str:
        """The VID that a dataset must have."""
        return identity.data_sample_vid(self.uuid(hda_id))

    def sample(self, hda_id: str) -> DataSample:
        """The recorded data of a dataset."""
        vid = self.vid(hda_id)
        obj = self.stores.catalog.get([vid])[vid].object
        assert isinstance(obj, DataSample)
        return obj

    def file(self, hda_id: str) -> DataObject:
        """The recorded file of a dataset."""
        vid = identity.data_object_vid(SERVER, self.uuid(hda_id))
        obj = self.stores.catalog.get([vid])[vid].object
        assert isinstance(obj, DataObject)
        return obj

    def collection(self, hdca_id: str) -> DataCollection:
        """The recorded collection that has exactly the elements of this one."""
        shown = self.user.client.dataset_collections.show_dataset_collection(hdca_id)
        items = [(e["element_identifier"], self._element(e)) for e in shown["elements"]]
        vid = identity.collection_vid(shown["collection_type"], items)
        obj = self.stores.catalog.get([vid])[vid].object
        assert isinstance(obj, DataCollection)
        return obj

    def _element(self, element: dict[str, Any]) -> str:
        inner = element["object"]
        if element["element_type"] == "hda":
            return identity.data_sample_vid(inner["uuid"])
        items = [(e["element_identifier"], self._element(e)) for e in inner["elements"]]
        return identity.collection_vid(inner["collection_type"], items)

    def parameters(self, action: Action) -> dict[str, Any]:
        """The recorded parameters of an action."""
        assert action.setup
        setup = self.stores.catalog.get([action.setup])[action.setup].object
        assert isinstance(setup, ActionSetup)
        return setup.parameters

    def device(self, action: Action) -> Device:
        """The recorded tool of an action."""
        assert action.device
        device = self.stores.catalog.get([action.device])[action.device].object
        assert isinstance(device, Device)
        return device

    def upstream(self, vid: str) -> set[str]:
        """All that this came from, itself left out."""
        return self._connected(vid, Direction.UPSTREAM)

    def downstream(self, vid: str) -> set[str]:
        """All that came from this, itself left out."""
        return self._connected(vid, Direction.DOWNSTREAM)

    def _connected(self, vid: str, direction: Direction) -> set[str]:
        answer = self.index.connected(Question(starts=(vid,), direction=direction))
        return {node.vid for node in answer.nodes} - {vid}

    def graph(self) -> set[object]:
        """The whole lineage graph, without what is of this catalog only."""
        index = self.index
        nodes = {(n.vid, n.kind, n.label, n.study, frozenset(n.makers)) for n in index.nodes()}
        return nodes | set(index.edges()) | set(index.uses())

    def study(self, label: str) -> str:
        """A new study; its VID."""
        study = Study(vid=new_vid(), label=label)
        self.stores.catalog.commit([Save(object=study)], by="test")
        return study.vid

    def tube(self, label: str, study: str) -> str:
        """A new tube; its VID."""
        tube = Tube(vid=new_vid(), label=label, study=study)
        self.stores.catalog.commit([Save(object=tube)], by="test")
        return tube.vid


@contextmanager
def lab_of(
    user: GalaxyUser,
    url: str,
    new_catalog: NewCatalog,
    folder: Path,
    *,
    history: str | None = "test",
) -> Iterator[Lab]:
    """A lab with an empty catalog, and a new history unless `history` is None.

    What the catalog has in files is in `folder`.
    """
    settings = new_catalog(folder)
    with open_stores(load_settings(environment=settings), write=True, init=True) as stores:
        made = user.new_history(history) if history is not None else ""
        yield Lab(user=user, url=url, history=made, stores=stores, settings=settings)


def new_user(galaxy: GalaxyServer, name: str) -> GalaxyUser:
    """A user for the tests of one module."""
    return GalaxyUser.on(galaxy, f"{name}-{os.getpid()}@biobank.example")


def ports(action: Action, side: str) -> list[tuple[str, str]]:
    """(role, VID) of an action's `inputs`, `outputs` or `without_edge`, sorted."""
    return sorted((port.role, port.object) for port in getattr(action, side))


__all__ = ["SERVER", "Lab", "Rules", "lab_of", "new_user", "ports"]
