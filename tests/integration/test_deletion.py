"""Deleting, undeleting and collecting, with a real orchestrator."""

import json

import grpc
import pytest
from support.orchestrator import Orchestrator, until
from support.tiny_dataset import blobs

from cellsparse.cli.app import run
from cellsparse.client import Client
from cellsparse.errors import FailedPrecondition, NotFound, ResourceExhausted
from cellsparse_common.storage import FolderStore, keys
from cellsparse_proto.v1 import common_pb2, orchestrator_pb2, project_pb2

AT_ONCE = {"CELLSPARSE_GRACE_DAYS": "0", "CELLSPARSE_COLLECT_WAIT_HOURS": "0", "CELLSPARSE_CHECKPOINT_DAYS": "0"}
QUICK_RUN = {"steps": 5}
SLOW = {"learning_rate": 0.9, "patience": 0}  # the fake backend sleeps 0.05 s in every step; none ends early


def trained(orchestrator, dataset_id, **settings):
    """A run that has succeeded."""
    made = orchestrator.train(dataset_id, **{**QUICK_RUN, **settings})
    until(lambda: orchestrator.run(made.id).state == common_pb2.RUN_STATE_SUCCEEDED)
    return made.id


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """An orchestrator that has trained two models, and has an unfinished run that starts from the first."""
    home = tmp_path_factory.mktemp("deletion") / "home"
    with Orchestrator(home) as orchestrator, Client(orchestrator.address) as client:
        dataset = orchestrator.upload()
        models = [trained(orchestrator, dataset.id) for _ in range(2)]
        yield orchestrator, client, dataset.id, models


def cli(capsys, monkeypatch, orchestrator, *arguments):
    """Run a command with --json; return the last document that it prints."""
    monkeypatch.setenv("CELLSPARSE_ADDRESS", orchestrator.address)
    capsys.readouterr()
    assert run([*arguments, "--json"]) == 0
    out = capsys.readouterr().out
    return json.loads(out.splitlines()[-1] if "collect" in arguments else out)


def test_what_is_deleted_is_hidden_and_comes_back_as_it_was(world, capsys, monkeypatch):
    orchestrator, client, dataset_id, (model_id, _) = world
    project = client.create_project("nuclei")
    before = client.run(model_id), client.model(model_id), client.dataset(dataset_id), client.project(project.id)
    things = [("run", model_id), ("model", model_id), ("dataset", dataset_id), ("project", project.id)]
    gets = [client.run, client.model, client.dataset, client.project]
    for (kind, thing_id), get in zip(things, gets, strict=True):
        client.delete(kind, thing_id)
        with pytest.raises(NotFound):
            get(thing_id)
        with pytest.raises(NotFound):
            client.delete(kind, thing_id)
    assert not list(client.datasets())
    assert [each.id for each in client.models()] == [each.id for each in client.runs()] == [world[3][1]]
    assert [(entry.kind, entry.id) for entry in client.deleted()] == [
        (orchestrator_pb2.DeletedKind.Value(f"DELETED_KIND_{kind.upper()}"), thing_id)
        for kind, thing_id in reversed(things)
    ]
    assert [each.id for each in client.deleted("run")] == [model_id]
    assert cli(capsys, monkeypatch, orchestrator, "admin", "collect")["objects"] == 0  # within the grace time
    for kind, thing_id in things:
        cli(capsys, monkeypatch, orchestrator, "undelete", kind, thing_id)
        client.undelete(kind, thing_id)  # once more changes nothing
    assert before == tuple(get(thing_id) for (_, thing_id), get in zip(things, gets, strict=True))
    assert not list(client.deleted())


def test_nothing_goes_that_something_needs(world):
    orchestrator, client, dataset_id, (model_id, _) = world
    going = orchestrator.train(dataset_id, initial_model=model_id, steps=2000, **SLOW)
    for kind, thing_id, named in (
        ("run", going.id, "has not ended"),
        ("dataset", dataset_id, going.id),
        ("model", model_id, going.id),
    ):
        with pytest.raises(FailedPrecondition, match=named):
            client.delete(kind, thing_id)
    client.cancel(going.id)
    until(lambda: orchestrator.run(going.id).state in (common_pb2.RUN_STATE_CANCELLED, common_pb2.RUN_STATE_SUCCEEDED))
    alias = project_pb2.Alias(backend="unet", name="the nuclei", model_id=model_id)
    orchestrator.projects.SetAlias(project_pb2.SetAliasRequest(alias=alias))
    with pytest.raises(FailedPrecondition, match="aliases"):
        client.delete("model", model_id)
    orchestrator.projects.DeleteAlias(project_pb2.DeleteAliasRequest(backend="unet", name="the nuclei"))
    client.delete("model", model_id)
    with pytest.raises(NotFound, match="model"):
        client.train(dataset_id, "unet", initial_model=model_id)
    client.undelete("model", model_id)


def test_a_quota_is_set_and_shown(world, capsys, monkeypatch):
    orchestrator, client, _, _ = world
    project = client.create_project("small")
    shown = cli(capsys, monkeypatch, orchestrator, "admin", "quota", "small", "--items", "5", "--runs", "2")
    assert shown["limits"] == {"items": 5, "runs": 2}
    cli(capsys, monkeypatch, orchestrator, "admin", "quota", project.id, "--runs", "3")
    assert (client.project(project.id).limits.items, client.project(project.id).limits.runs) == (5, 3)
    assert cli(capsys, monkeypatch, orchestrator, "admin", "quota", "small", "--clear")["limits"] == {}
    assert client.project(project.id).use.items == 0
    image = blobs(64, seed=1)[0]
    client.set_limits(project.id, bytes=1)
    with pytest.raises(ResourceExhausted, match="MiB of datasets, images and models"):
        client.add_project_image(project.id, image, name="a.tif")
    client.set_limits(project.id, bytes=2**20, items=1)
    client.add_project_image(project.id, image, name="a.tif")
    assert 0 < client.project(project.id).use.bytes < 2**20
    with pytest.raises(ResourceExhausted, match="is 1 items of datasets and images, and it has 1: 1 more take 2"):
        client.add_project_image(project.id, image, name="b.tif")


def test_a_request_that_made_what_is_deleted_is_refused(world):
    orchestrator, client, dataset_id, _ = world
    made = orchestrator.train(dataset_id, request_id="once", **QUICK_RUN)
    until(lambda: orchestrator.run(made.id).state == common_pb2.RUN_STATE_SUCCEEDED)
    client.delete("run", made.id)
    with pytest.raises(grpc.RpcError, match="which is deleted; undelete it") as caught:
        orchestrator.train(dataset_id, request_id="once", **QUICK_RUN)
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION


def test_after_the_grace_time_a_collection_removes_it_for_good(tmp_path, capsys, monkeypatch):
    with Orchestrator(tmp_path / "home", **AT_ONCE) as orchestrator, Client(orchestrator.address) as client:
        kept, gone = orchestrator.upload(), orchestrator.upload(name="gone")
        model_id, other = trained(orchestrator, kept.id), trained(orchestrator, gone.id)
        store = FolderStore(orchestrator.store)
        until(lambda: all(store.exists(keys.attempt_log(each, 1)) for each in (model_id, other)))
        store.put(keys.checkpoint(model_id, 999, "state"), b"left over")  # as of an attempt that was killed
        client.delete("dataset", gone.id)
        client.delete("run", other)
        before = sorted(store.list(""))
        dry = cli(capsys, monkeypatch, orchestrator, "admin", "collect", "--dry-run")
        assert (dry["dry_run"], dry["expired"]) == (True, 2)
        assert sorted(store.list("")) == before
        done = cli(capsys, monkeypatch, orchestrator, "admin", "collect")
        after = sorted(store.list(""))
        assert done["objects"] == dry["objects"] == len(before) - len([key for key in after if key in before])
        assert done["bytes"] == dry["bytes"] > 0
        assert not [key for key in after if gone.id in key]
        assert {key.split("/")[2] for key in after if key.startswith(f"runs/{other}/")} == {"model"}
        assert keys.checkpoint(model_id, 999, "state") not in after
        assert [key for key in after if key.startswith(keys.BLOBS)]  # the other dataset has the same blobs
        with pytest.raises(NotFound):
            client.undelete("dataset", gone.id)
        client.delete("dataset", kept.id)
        client.delete("model", other)
        cli(capsys, monkeypatch, orchestrator, "admin", "collect")
        left = list(store.list(""))
        assert not [key for key in left if key.startswith((keys.BLOBS, keys.DATASETS, f"runs/{other}/"))]
        assert store.exists(keys.run_spec(model_id))
