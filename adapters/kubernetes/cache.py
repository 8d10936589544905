"""What we know of one kind of object: kept small, folded from lists, watches and the answers to our own writes.

An object is kept as its JSON text and read when it is asked for, so ten thousand of them fit in a few megabytes.
Writes of ours show at once; older news is ignored.

A cache hands out copies, unless it is `shared`: then the objects in use are read once per version, handed out again
and again, and **nobody may change what a shared cache gives**. Whoever wants another object builds a new one:
`{**item, "metadata": {**item["metadata"], ...}}`. Tests look that the rule is kept (`VERIFY`).
"""

from __future__ import annotations

import collections
import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import orjson

Object = dict[str, Any]
Indexer = Callable[[Object], Iterable[str]]
Listener = Callable[[Object | None, Object | None], None]
"""Called after a change with what was known before and what is known now; None for not there."""

TOMBSTONES = 8192
HOT = 128
"""How many read objects a shared cache keeps at hand."""
VERIFY = os.environ.get("SNAPBRIDGE_VERIFY_CACHE") == "1"
"""In tests: compare an object with its text whenever it is handed out again."""


@dataclasses.dataclass(slots=True)
class _Stored:
    uid: str
    version: str
    text: bytes
    marks: tuple[tuple[str, str], ...]
    seal: int | None = None


def newer(version: str, than: str) -> bool:
    """Whether a resourceVersion is news. They are opaque unless both are numbers; then order counts."""
    if version.isdecimal() and than.isdecimal():
        return int(version) > int(than)
    return version != than


class Cache:
    """Objects of one kind by namespace and name, by uid, and by the indexes given."""

    def __init__(
        self,
        trim: Callable[[Object], Object],
        indexers: Mapping[str, Indexer] | None = None,
        *,
        keep: Callable[[Object], bool] | None = None,
        seal: Callable[[Object], int | None] | None = None,
        shared: bool = False,
    ) -> None:
        """`keep` says which objects are wanted; None for all. `seal`: a number to know about each one unread."""
        self._trim = trim
        self._shared = shared
        self._hot: collections.OrderedDict[tuple[str, str], Object] = collections.OrderedDict()
        self._keep = keep
        self._seal = seal or _unsealed
        self._indexers = dict(indexers or {})
        self._stored: dict[tuple[str, str], _Stored] = {}
        self._by_uid: dict[str, tuple[str, str]] = {}
        self._indexes: dict[str, dict[str, set[tuple[str, str]]]] = {name: {} for name in self._indexers}
        self._gone: collections.OrderedDict[str, str] = collections.OrderedDict()
        """Uid -> the version at which the server said that it left; empty when it can never come back."""
        self._left: collections.OrderedDict[tuple[str, str], None] = collections.OrderedDict()
        self._listeners: list[Listener] = []
        self.changes = 0
        """Counts up with every change: who has looked since may go on with what was found."""
        self.synced = False
        """Never false again."""
        self.telling_own = False
        """While listeners are called: it is the answer to a write of the very turn that waits for it."""

    def __len__(self) -> int:
        return len(self._stored)

    def listen(self, listener: Listener) -> None:
        """Call `listener` after every change that is news. It may not block."""
        self._listeners.append(listener)

    def get(self, namespace: str, name: str) -> Object | None:
        """The object, or None."""
        place = (namespace, name)
        stored = self._stored.get(place)
        return None if stored is None else self._look(place, stored)

    def by_uid(self, uid: str) -> Object | None:
        """The object with this uid, or None."""
        place = self._by_uid.get(uid)
        return None if place is None else self._look(place, self._stored[place])

    def saw_go(self, namespace: str, name: str) -> bool:
        """Whether an object of this name was known here and has gone (of late: not all are remembered)."""
        return (namespace, name) in self._left

    def version(self, namespace: str, name: str) -> str:
        """The resourceVersion known, empty when the object is not."""
        stored = self._stored.get((namespace, name))
        return "" if stored is None else stored.version

    def find(self, index: str, key: str) -> list[Object]:
        """The objects that an index keeps under a key."""
        return [self._look(place, self._stored[place]) for place in sorted(self._indexes[index].get(key, ()))]

    def each(self, index: str, key: str) -> Iterator[Object]:
        """`find`, one after the other: for who stops at the first that fits."""
        for place in list(self._indexes[index].get(key, ())):
            stored = self._stored.get(place)
            if stored is not None:
                yield _read(stored)

    def knows(self, uid: str) -> bool:
        """Whether there is an object with this uid."""
        return uid in self._by_uid

    def count(self, index: str, key: str) -> int:
        """How many objects an index keeps under a key."""
        return len(self._indexes[index].get(key, ()))

    def all(self) -> Iterator[Object]:
        """Each object that is known when the iteration starts; always a copy."""
        for place in list(self._stored):
            stored = self._stored.get(place)
            if stored is not None:
                yield _read(stored)

    def seals(self) -> Iterator[tuple[str, int | None]]:
        """The uid and the seal of each object, none of which is read for it. Nothing may be folded meanwhile."""
        for stored in self._stored.values():
            yield stored.uid, stored.seal

    def fold(self, item: Object, *, own: bool = False) -> bool:
        """Take in an object as the server gave it, unless what we know is as new. Returns whether it was news.

        `own`: listeners that wake turns need not wake the one that wrote it (see `telling_own`).
        """
        metadata = item["metadata"]
        uid, version = metadata.get("uid", ""), metadata.get("resourceVersion", "")
        place = (metadata.get("namespace", ""), metadata["name"])
        if uid in self._gone and not self._is_back(uid, version):
            return False
        if self._keep is not None and not self._keep(item):
            return self._drop(place, uid, for_good=False)
        if metadata.get("deletionTimestamp") and not metadata.get("finalizers"):
            # The write that takes the last finalizer off deletes; its answer shows the version from before.
            return self._drop(place, uid)
        known = self._stored.get(place)
        if known is not None and not newer(version, known.version):
            return False
        if known is not None and known.uid != uid:
            # Its end was missed: what is remembered of it must not pass to its namesake.
            self._drop(place, known.uid)
            known = None
        before = self._look(place, known) if known is not None and self._listeners else None
        trimmed = self._trim(item)
        self._put(place, _Stored(uid, version, _text(trimmed), self._marks(trimmed), self._seal(trimmed)))
        self._hot.pop(place, None)
        if self.synced:  # Of a long first list hardly anything is asked for.
            self._keep_hot(place, trimmed)
        self.telling_own = own
        try:
            self._tell(before, trimmed)
        finally:
            self.telling_own = False
        return True

    def forget(self, namespace: str, name: str, uid: str, *, version: str = "") -> bool:
        """The object with this uid is gone. For good, unless `version` says when: what is watched by a label may
        leave and come back, and is then younger."""
        return self._drop((namespace, name), uid, version=version)

    def replace(self, items: Mapping[tuple[str, str], str], version: str) -> None:
        """A full list has been folded: drop what it lacks. `items` maps place to uid.

        What we know to be younger than the list (our own writes) stays.
        """
        for place, stored in list(self._stored.items()):
            if items.get(place) != stored.uid and not newer(stored.version, version):
                self._drop(place, stored.uid, version=version)
        self.synced = True

    def _put(self, place: tuple[str, str], stored: _Stored) -> None:
        self.changes += 1
        known = self._stored.get(place)
        if known is not None:
            self._unmark(place, known)
            if known.uid != stored.uid:
                self._by_uid.pop(known.uid, None)
        self._stored[place] = stored
        self._by_uid[stored.uid] = place
        for index, key in stored.marks:
            self._indexes[index].setdefault(key, set()).add(place)

    def _is_back(self, uid: str, version: str) -> bool:
        """Whether this is news of an object that left: nothing is younger than the end of one that is deleted."""
        left = self._gone[uid]
        if not (left.isdecimal() and version.isdecimal() and newer(version, left)):
            return False
        del self._gone[uid]
        return True

    def _drop(self, place: tuple[str, str], uid: str, *, for_good: bool = True, version: str = "") -> bool:
        if uid and for_good and self._gone.get(uid) != "":
            self._gone[uid] = version
            if len(self._gone) > TOMBSTONES:
                self._gone.popitem(last=False)
        known = self._stored.get(place)
        if known is None or (uid and known.uid != uid):
            return False
        self.changes += 1
        self._left[place] = None
        if len(self._left) > TOMBSTONES:
            self._left.popitem(last=False)
        self._unmark(place, known)
        self._hot.pop(place, None)
        del self._stored[place]
        self._by_uid.pop(known.uid, None)
        self._tell(_read(known), None)
        return True

    def _look(self, place: tuple[str, str], stored: _Stored) -> Object:
        """A copy, or in a shared cache the one that everybody gets."""
        if not self._shared:
            return _read(stored)
        found = self._hot.get(place)
        if found is None:
            found = _read(stored)
            self._keep_hot(place, found)
        elif VERIFY and orjson.dumps(found) != stored.text:
            raise AssertionError(f"somebody changed {place}, which others read too: {found} was {stored.text!r}")
        return found

    def _keep_hot(self, place: tuple[str, str], item: Object) -> None:
        if self._shared:
            self._hot[place] = item
            if len(self._hot) > HOT:
                self._hot.popitem(last=False)

    def _unmark(self, place: tuple[str, str], stored: _Stored) -> None:
        for index, key in stored.marks:
            places = self._indexes[index].get(key)
            if places is not None:
                places.discard(place)
                if not places:
                    del self._indexes[index][key]

    def _marks(self, item: Object) -> tuple[tuple[str, str], ...]:
        # A malformed object may have anything where a name belongs; only a text can be a key.
        return tuple((name, str(key)) for name, indexer in self._indexers.items() for key in indexer(item))

    def _tell(self, before: Object | None, after: Object | None) -> None:
        for listener in self._listeners:
            listener(before, after)


def _unsealed(_item: Object) -> int | None:
    return None


def _text(item: Object) -> bytes:
    """Its JSON in no more room than it takes: orjson's own answer keeps what it was built in, four times that."""
    return memoryview(orjson.dumps(item)).tobytes()


def _read(stored: _Stored) -> Object:
    value: Object = orjson.loads(stored.text)
    return value
