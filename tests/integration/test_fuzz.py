"""500 hostile files and 10,000 hostile requests, always the same, against live servers; see `support.fuzz`."""

import io
import random
import zipfile

import pytest
from support.fuzz.attack import cases, play_all
from support.fuzz.files import hostile_file, valid_files_once, zipped
from support.fuzz.watch import MemoryWatch
from support.fuzz.world import World

FILES, REQUESTS = 500, 10_000
MOST_MIB = 1024


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    with World(tmp_path_factory.mktemp("fuzz") / "home") as running:
        yield running


def test_no_hostile_file_or_request_breaks_anything(world):
    with MemoryWatch(list(world.pids.values())) as memory:
        broken = play_all(world, cases(FILES, REQUESTS))
        complaints = world.complaints()
    assert broken == []
    assert complaints == []
    assert {name: peak for name, peak in memory.peaks.items() if peak > MOST_MIB} == {}
    assert len(memory.peaks) >= len(world.pids)


def test_a_case_sends_the_same_again():
    for name in sorted(valid_files_once()):
        first, second = (hostile_file(random.Random(f"file:{name}"), name) for _ in range(2))
        assert first == second


def test_files_of_any_name_are_zipped():
    data = zipped({"\0": b"x", "../x": b"y"})
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.namelist() == ["", "../x"]


def test_every_file_can_be_mutated():
    for name in sorted(valid_files_once()):
        for seed in range(30):
            assert isinstance(hostile_file(random.Random(f"{name}:{seed}"), name), bytes)
