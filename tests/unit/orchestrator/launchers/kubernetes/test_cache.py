"""The cache's groups agree with its objects, whatever comes in which order."""

from hypothesis import given
from hypothesis import strategies as st

from cellsparse_orchestrator.launchers.kubernetes.cache import ObjectCache

NAMES, GROUPS = st.sampled_from("abcd"), st.sampled_from("xyz")


def pod(name, group, created="2026-01-01T00:00:00Z", **more):
    return {"metadata": {"name": name, "created": created}, "group": group, **more}


def group_of(found):
    return found["group"]


PODS = st.builds(pod, NAMES, GROUPS)
STEPS = st.one_of(
    st.tuples(st.just("put"), PODS),
    st.tuples(st.just("drop"), NAMES),
    st.tuples(st.just("replace"), st.lists(PODS)),
)


@given(st.lists(STEPS, max_size=20))
def test_groups_hold_exactly_the_objects(steps):
    changed = []
    cache, wanted = ObjectCache(group_of, changed.append), {}
    for kind, what in steps:
        before = dict(wanted)
        if kind == "put":
            wanted[what["metadata"]["name"]] = what
            cache.put(what)
        elif kind == "drop":
            wanted.pop(what, None)
            cache.drop(what)
        else:
            wanted = {one["metadata"]["name"]: one for one in what}
            cache.replace(wanted)
        assert {one["metadata"]["name"]: one for one in cache.all()} == wanted
        for group in "xyz":
            names = [one["metadata"]["name"] for one in cache.group(group)]
            assert names == sorted(name for name, one in wanted.items() if one["group"] == group)
        names = before.keys() | wanted.keys()
        touched = {
            one["group"]
            for name in names
            if before.get(name) != wanted.get(name)
            for one in (before.get(name), wanted.get(name))
            if one is not None
        }
        assert set(changed) == touched
        changed.clear()


def test_a_group_is_sorted_by_age():
    cache = ObjectCache(group_of, lambda _: None)
    cache.put(pod("a", "x", "2026-01-01T00:00:09Z"))
    cache.put(pod("b", "x", "2026-01-01T00:00:01Z"))
    assert [one["metadata"]["name"] for one in cache.group("x")] == ["b", "a"]
    assert cache.group("y") == []
    assert cache.get("a") == pod("a", "x", "2026-01-01T00:00:09Z")
