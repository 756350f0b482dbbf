"""The watched copy of the cluster stays whole, whatever the API server does, and is rarely listed anew."""

import threading
import time
from functools import partial

import pytest
from kubernetes import client
from support.kubernetes_api import event, serving_api, thing
from support.limits import PATIENCE, QUICK

from cellsparse_orchestrator.launchers.kubernetes import watch
from cellsparse_orchestrator.launchers.kubernetes.cache import ObjectCache
from cellsparse_orchestrator.launchers.kubernetes.watch import ResourceWatch


@pytest.fixture
def api_and_url():
    with serving_api() as found:
        yield found


@pytest.fixture
def api(api_and_url):
    return api_and_url[0]


class Copy:
    """A cache, the watch that fills it, and the groups that it reported as changed."""

    def __init__(self, url):
        self.reported = []
        self.changed = threading.Condition()
        self.cache = ObjectCache(lambda one: one["metadata"]["name"], self._on_change)
        core = client.CoreV1Api(client.ApiClient(client.Configuration(host=url)))
        self.watch = ResourceWatch("pods", partial(core.list_namespaced_pod, "ns"), _project, self.cache)

    def _on_change(self, name):
        with self.changed:
            self.reported.append(name)
            self.changed.notify_all()

    def names(self):
        return {one["metadata"]["name"]: one["version"] for one in self.cache.all()}

    def until(self, names, seconds=PATIENCE):
        with self.changed:
            assert self.changed.wait_for(lambda: self.names() == names, seconds), self.names()


def _project(item):
    return {"metadata": {"name": item["metadata"]["name"]}, "version": int(item["metadata"]["resourceVersion"])}


@pytest.fixture
def copy(api_and_url):
    copy = Copy(api_and_url[1])
    yield copy
    copy.watch.stop()
    if copy.watch.ident is not None:
        copy.watch.join(PATIENCE)
        assert not copy.watch.is_alive()


def start(copy):
    copy.watch.start()
    assert copy.watch.complete.wait(PATIENCE), copy.watch.problem


def test_pages_become_one_copy(api, copy):
    api.page(thing("a", 1), thing("b", 2), version=9, token="next")
    api.page(thing("c", 3), version=9, token="last")
    api.page(version=9)
    start(copy)
    assert copy.names() == {"a": 1, "b": 2, "c": 3}
    assert [(one["limit"], one.get("continue")) for one in api.lists()] == [
        ("500", None),
        ("500", "next"),
        ("500", "last"),
    ]
    api.until(lambda: api.watches())
    assert api.watches()[0]["resourceVersion"] == "9"


@pytest.mark.parametrize("cut", [1, 7, 2**20])
def test_events_in_chunks_of_any_size_are_applied(api, copy, cut):
    api.page(thing("a", 1), thing("b", 2), version=9)
    api.stream(
        event("ADDED", thing("ä" * 50, 10)),
        event("MODIFIED", thing("a", 11)),
        event("DELETED", thing("b", 12)),
        event("ADDED", thing("d", 13)),
        cut=cut,
    )
    start(copy)
    copy.until({"a": 11, "ä" * 50: 10, "d": 13})
    assert copy.reported[-4:] == ["ä" * 50, "a", "b", "d"]
    assert len(api.lists()) == 1


def test_a_watch_that_ends_goes_on_at_its_bookmark_without_a_list(api, copy):
    api.page(version=5)
    api.stream(event("BOOKMARK", thing("", 70)), end="end")
    api.stream(event("ADDED", thing("a", 71)))
    start(copy)
    copy.until({"a": 71})
    assert [one["resourceVersion"] for one in api.watches()[:2]] == ["5", "70"]
    assert [one["allowWatchBookmarks"] for one in api.watches()[:2]] == ["true", "true"]
    assert len(api.lists()) == 1


def test_a_connection_that_breaks_within_an_event_goes_on_before_it(api, copy):
    api.page(version=5)
    api.raw_stream(b'{"type":"ADDED","object":{"metadata":{"name":"a","resourceVersion":"6"}}}\n{"type":"ADD', "break")
    api.stream(event("ADDED", thing("b", 7)))
    start(copy)
    copy.until({"a": 6, "b": 7})
    assert [one["resourceVersion"] for one in api.watches()[:2]] == ["5", "6"]
    assert len(api.lists()) == 1


def _expired_event(api):
    api.stream(event("ERROR", {"code": 410, "message": "too old resource version: 5 (60)"}), end="end")


def _expired_answer(api):
    api.refuse(410, "Expired", watch=True)


@pytest.mark.parametrize("expire", [_expired_event, _expired_answer])
def test_a_forgotten_version_is_listed_anew_and_what_went_meanwhile_is_told(api, copy, expire):
    api.page(thing("stays", 1), thing("goes", 2), thing("changes", 3), version=5)
    expire(api)
    api.page(thing("stays", 1), thing("changes", 58), thing("new", 59), version=60)
    start(copy)
    copy.until({"stays": 1, "changes": 58, "new": 59})
    assert sorted(copy.reported[3:]) == ["changes", "goes", "new"]
    api.until(lambda: len(api.watches()) == 2)
    assert api.watches()[1]["resourceVersion"] == "60"


def test_a_list_that_expires_between_pages_begins_anew(api, copy):
    api.page(thing("a", 1), version=5, token="old")
    api.refuse(410, "The provided continue parameter is too old", watch=False)
    api.page(thing("b", 2), version=6)
    start(copy)
    assert copy.names() == {"b": 2}
    assert [one.get("continue") for one in api.lists()] == [None, "old", None]


def test_a_refused_watch_says_so_and_is_not_asked_for_without_pauses(api, copy):
    for _ in range(50):
        api.page(thing("a", 1), version=5)
    api.refuse(403, 'pods is forbidden: User "x" cannot watch', watch=True, times=50)
    start(copy)
    api.until(lambda: len(api.watches()) >= 3)
    assert copy.watch.problem == 'The Kubernetes API refuses: pods is forbidden: User "x" cannot watch'
    time.sleep(1.5)
    assert len(api.lists()) <= 4
    assert copy.names() == {"a": 1}, "what was known stays readable"


def test_an_overrun_server_keeps_the_copy_and_costs_no_list(api, copy):
    api.page(thing("a", 1), version=5)
    api.refuse(500, "etcd is away", watch=True)
    api.refuse(429, "too many requests", watch=True)
    api.stream(event("ADDED", thing("b", 6)))
    start(copy)
    copy.until({"a": 1, "b": 6})
    assert len(api.lists()) == 1
    assert copy.watch.problem == ""


def test_a_server_that_is_away_at_the_start_is_found_when_it_comes(api, copy):
    api.refuse(503, "starting", watch=False, times=2)
    api.page(thing("a", 1), version=5)
    copy.watch.start()
    api.until(lambda: len(api.lists()) == 1)
    assert not copy.watch.complete.is_set()
    assert copy.watch.complete.wait(PATIENCE)
    assert copy.names() == {"a": 1}


def test_a_silent_connection_is_replaced(api, copy, monkeypatch):
    monkeypatch.setattr(watch, "_SILENCE_SECONDS", 0.3)
    api.page(version=5)
    api.stream()
    api.stream(event("ADDED", thing("a", 6)))
    start(copy)
    copy.until({"a": 6})
    assert len(api.lists()) == 1


def test_nonsense_does_not_end_the_watch(api, copy):
    api.page(version=5)
    api.raw_stream(b"<html>a proxy speaks</html>\n", "stay")
    api.page(thing("a", 6), version=6)
    start(copy)
    copy.until({"a": 6})


def test_an_equal_object_is_no_news(api, copy):
    api.page(thing("a", 1), version=5)
    api.stream(event("MODIFIED", thing("a", 1)), event("ADDED", thing("b", 7)))
    start(copy)
    copy.until({"a": 1, "b": 7})
    assert copy.reported == ["a", "b"]


def test_stop_ends_a_silent_watch_at_once(api, copy):
    api.page(version=5)
    api.stream()
    start(copy)
    api.until(lambda: api.watches())
    time.sleep(0.2)
    began = time.monotonic()
    copy.watch.stop()
    copy.watch.join(PATIENCE)
    assert time.monotonic() - began < QUICK
