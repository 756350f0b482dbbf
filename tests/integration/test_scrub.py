"""Rotten, missing and unreferenced blobs of a real orchestrator: never handed out, found by a scrub, mended."""

import json
import sqlite3
import time

import grpc
import pytest
from support.limits import PATIENCE
from support.orchestrator import Orchestrator, refused, tiny_items, until

from cellsparse.cli.app import run
from cellsparse_common.errors import Damaged, FailedPrecondition
from cellsparse_common.storage import FolderStore, keys
from cellsparse_proto.v1 import admin_pb2, dataset_pb2


@pytest.fixture
def orchestrator(tmp_path, monkeypatch):
    with Orchestrator(tmp_path / "home", CELLSPARSE_LAUNCHER="static") as running:
        monkeypatch.setenv("CELLSPARSE_ADDRESS", running.address)
        yield running


def scrub(capsys, *more):
    """Run the command; return its exit code, the findings as (problem, key, users), and the summary."""
    capsys.readouterr()
    code = run(["admin", "scrub", "--json", *more])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return code, [(each["problem"], each["key"], each["users"]) for each in lines[:-1]], lines[-1]


def item(orchestrator, dataset_id, name):
    request = dataset_pb2.GetDatasetItemRequest(dataset_id=dataset_id, item=name)
    return orchestrator.datasets.GetDatasetItem(request, timeout=PATIENCE)


def test_what_rots_is_found_and_mended_by_the_same_upload(orchestrator, capsys):
    items = list(tiny_items())
    dataset = orchestrator.upload(items)
    found = item(orchestrator, dataset.id, "item0")
    code, findings, summary = scrub(capsys)
    assert (code, findings) == (0, [])
    assert (summary["blobs"], summary["missing"], summary["rotten"]) == (4, 0, 0)  # the label images are equal

    image = keys.blob(found.item.image_sha256)
    gone = keys.blob(item(orchestrator, dataset.id, "item1").item.image_sha256)
    store = FolderStore(orchestrator.store)
    before = store.get(image)
    path = orchestrator.store / image
    path.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    store.delete(gone)
    stray = keys.blob("0" * 64)
    store.put(stray, b"")  # rotten as well: its hash is another
    for name, word in (("item0", "is rotten"), ("item1", "is missing")):
        request = dataset_pb2.GetDatasetItemRequest(dataset_id=dataset.id, item=name)
        error = refused(orchestrator.datasets.GetDatasetItem, request)
        assert isinstance(error, Damaged)
        assert error.status is grpc.StatusCode.DATA_LOSS
        assert word in error.message
        assert "upload the same" in error.message
        assert str(orchestrator.home) not in error.message

    code, findings, summary = scrub(capsys)
    assert code == 1
    assert findings == [("rotten", *each) for each in sorted([(stray, []), (image, [dataset.id])])] + [
        ("missing", gone, [dataset.id])
    ]
    assert (summary["missing"], summary["rotten"], summary["unreferenced"]) == (1, 2, 0)
    assert path.read_bytes() != before  # a scrub changes nothing

    again = orchestrator.upload(items, name="again")
    assert item(orchestrator, dataset.id, "item0").image == before
    assert item(orchestrator, dataset.id, "item1").item.name == "item1"
    store.delete(stray)
    assert scrub(capsys)[:2] == (0, [])

    for each in (dataset, again):
        orchestrator.datasets.DeleteDataset(dataset_pb2.DeleteDatasetRequest(dataset_id=each.id), timeout=PATIENCE)
    assert scrub(capsys)[:2] == (0, [])  # they can be undeleted
    for each in (dataset, again):
        store.delete(keys.dataset_manifest(each.id))
    with sqlite3.connect(orchestrator.home / "cellsparse.db") as database:
        database.execute("DELETE FROM datasets")
    code, findings, summary = scrub(capsys)
    assert (code, {problem for problem, _, _ in findings}) == (0, {"unreferenced"})
    assert summary["unreferenced"] == 4
    assert summary["unreferenced_bytes"] == summary["bytes_read"] > 0


def test_a_lost_manifest_is_told(orchestrator, capsys):
    dataset = orchestrator.upload()
    key = keys.dataset_manifest(dataset.id)
    (orchestrator.store / key).write_bytes(b"{")
    code, findings, _ = scrub(capsys)
    assert code == 1
    assert ("rotten", key, [dataset.id]) in findings
    (orchestrator.store / key).unlink()
    assert ("missing", key, [dataset.id]) in scrub(capsys)[1]


def test_the_rate_is_kept_and_only_one_scrub_goes_on(orchestrator):
    store = FolderStore(orchestrator.store)
    orchestrator.upload()
    store.put(keys.blob("1" * 64), bytes(4 * 2**20))
    began = time.monotonic()
    slow = orchestrator.admin.Scrub(admin_pb2.ScrubRequest(max_mib_per_second=1), timeout=PATIENCE)
    seen = [answer for answer, _ in zip(slow, range(3), strict=False)]
    assert time.monotonic() - began > seen[-1].progress.bytes_read / 2**20 - 1.1 > 0  # a part may be ahead
    error = refused(orchestrator.admin.Scrub, admin_pb2.ScrubRequest())
    assert isinstance(error, FailedPrecondition)
    slow.cancel()
    until(lambda: run(["admin", "scrub", "--json"]) == 1)  # the server may take a moment to end the other one


def test_a_rate_out_of_range_is_refused(orchestrator):
    error = refused(orchestrator.admin.Scrub, admin_pb2.ScrubRequest(max_mib_per_second=0))
    assert "max_mib_per_second" in error.message
