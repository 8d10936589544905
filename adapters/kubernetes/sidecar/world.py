"""One driver's contents, and the classes: all that the driver half ever reads of a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from adapters.kubernetes import names, trim
from adapters.kubernetes.cache import Cache
from adapters.kubernetes.decide import driver_half, wellformed
from adapters.kubernetes.facts import Facts, is_deleting, path, snapshot_of_reference
from adapters.kubernetes.world import World, malformed

Object = dict[str, Any]


class DriverWorld(World):
    """A uid here is a content's own."""

    def __init__(self, driver: str, naming: names.Naming | None = None, *, forget_owners: bool = False) -> None:
        super().__init__(naming, forget_owners=forget_owners)
        self.driver = driver
        self.contents = Cache(
            self.trim_content,
            {"by-cut": _by_cut, "open-by-class": _open_by_class, "malformed": malformed(wellformed.content)},
            keep=lambda item: path(item, "spec", "driver") == driver,
        )
        self.classes = Cache(
            trim.whole,
            {"malformed": malformed(wellformed.klass)},
            keep=lambda item: item.get("driver") == driver,
        )
        self.caches = {names.CONTENTS: self.contents, names.CLASSES: self.classes}
        self._all = tuple(self.caches.values())

    def facts(self, uid: str) -> Facts | None:
        """What is known of one content; None when it is not there. MalformedError: see World."""
        content = self.contents.by_uid(uid)
        if content is None:
            return None
        self._refuse_malformed(content, None)
        class_name = str(path(content, "spec", "volumeSnapshotClassName") or "")
        klass, class_trouble = self._class(class_name)
        return Facts(
            uid=snapshot_of_reference(content),
            content=content,
            class_name=class_name,
            klass=klass,
            class_trouble=class_trouble,
            naming=self.naming,
        )

    def open_uids(self) -> Iterator[str]:
        """The contents that need work or may need it."""
        for content in self.contents.all():
            if driver_half.is_open(content):
                yield content["metadata"]["uid"]

    def listen(self, wake: Callable[[str], None]) -> None:
        """Call `wake` with the uid of each content that a change may concern."""

        def content_changed(before: Object | None, after: Object | None) -> None:
            if self.synced:
                for uid in {uid for item in (before, after) if item is not None for uid in self._concerned(item)}:
                    wake(uid)

        def class_changed(before: Object | None, after: Object | None) -> None:
            item = after or before
            if self.synced and item is not None:
                for content in self.contents.find("open-by-class", item["metadata"]["name"]):
                    wake(content["metadata"]["uid"])

        self.contents.listen(content_changed)
        self.classes.listen(class_changed)

    def _concerned(self, content: Object) -> Iterable[str]:
        """The content, and those of the same snapshot whose deletion may wait for it."""
        yield content["metadata"]["uid"]
        for key in _by_cut(content):
            if self.contents.count("by-cut", key) > 1:
                for other in self.contents.find("by-cut", key):
                    if is_deleting(other):
                        yield other["metadata"]["uid"]

    def _goes(self, content: Object) -> bool:
        return driver_half.goes(content)


def _by_cut(content: Object) -> Iterable[str]:
    handle = driver_half.handle_of(content)
    return (f"{path(content, 'spec', 'driver')}/{handle}",) if handle else ()


def _open_by_class(content: Object) -> Iterable[str]:
    named = path(content, "spec", "volumeSnapshotClassName")
    return (str(named),) if named and path(content, "status", "readyToUse") is not True else ()
