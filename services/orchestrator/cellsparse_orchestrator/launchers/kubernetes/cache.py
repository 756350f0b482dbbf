"""A cache of the cluster's objects, for many readers and one writer."""

import threading
from collections.abc import Callable

from cellsparse_orchestrator.launchers.kubernetes.settings import Object


class ObjectCache:
    """Objects of one kind, indexed by name and by group, so that a reader never searches all of them.

    Args:
        group: Returns the name of an object's group, such as the Job of a pod.
        on_change: Called with a group's name after each change of an object in it, outside the lock.
    """

    def __init__(self, group: Callable[[Object], str], on_change: Callable[[str], None]) -> None:
        self._group = group
        self._on_change = on_change
        self._lock = threading.Lock()
        self._objects: dict[str, Object] = {}
        self._groups: dict[str, dict[str, Object]] = {}

    def get(self, name: str) -> Object | None:
        """Return an object by name."""
        with self._lock:
            return self._objects.get(name)

    def all(self) -> list[Object]:
        """Return all objects."""
        with self._lock:
            return list(self._objects.values())

    def group(self, name: str) -> list[Object]:
        """Return the objects of a group, oldest first; those of the same second by name."""
        with self._lock:
            found = list(self._groups.get(name, {}).values())
        return sorted(found, key=lambda one: (str(one["metadata"].get("created", "")), one["metadata"]["name"]))

    def put(self, found: Object) -> None:
        """Add an object, or replace the one with its name; an equal object changes nothing."""
        name = found["metadata"]["name"]
        with self._lock:
            old = self._objects.get(name)
            if old == found:
                return
            touched = self._take(name) | {self._add(name, found)}
        self._notify(touched)

    def drop(self, name: str) -> None:
        """Remove an object, if it is cached."""
        with self._lock:
            touched = self._take(name)
        self._notify(touched)

    def replace(self, found: dict[str, Object]) -> None:
        """Replace the whole content by new objects, given by name."""
        with self._lock:
            gone = [name for name in self._objects if name not in found]
            new = {name: one for name, one in found.items() if self._objects.get(name) != one}
            touched: set[str] = set()
            for name in gone:
                touched |= self._take(name)
            for name, one in new.items():
                touched |= self._take(name) | {self._add(name, one)}
        self._notify(touched)

    def _add(self, name: str, found: Object) -> str:
        group = self._group(found)
        self._objects[name] = found
        self._groups.setdefault(group, {})[name] = found
        return group

    def _take(self, name: str) -> set[str]:
        old = self._objects.pop(name, None)
        if old is None:
            return set()
        group = self._group(old)
        members = self._groups[group]
        del members[name]
        if not members:
            del self._groups[group]
        return {group}

    def _notify(self, groups: set[str]) -> None:
        for group in groups:
            self._on_change(group)
