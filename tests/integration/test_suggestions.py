"""Suggestions through real servers: the sparsifier alone, a project with and without a model, REST and the command."""

import json
import zlib

import grpc
import httpx
import numpy as np
import pytest
from support.gateway import Gateway
from support.limits import LONG_PATIENCE, PATIENCE
from support.orchestrator import Orchestrator, refused, state_names
from support.scenes import scene
from support.sparsifier_server import running_sparsifier

from cellsparse import Client
from cellsparse.cli.app import run as command
from cellsparse_common.errors import FailedPrecondition, InvalidArgument, NotFound, ResourceExhausted
from cellsparse_common.imaging.images import encode_tiff
from cellsparse_common.imaging.labels import encode_labels
from cellsparse_proto.v1 import project_pb2, sparsifier_pb2, suggestion_pb2, trainer_pb2

CELL, BACKGROUND = suggestion_pb2.SUGGESTION_KIND_CELL, suggestion_pb2.SUGGESTION_KIND_BACKGROUND
Request = sparsifier_pb2.SuggestCellsRequest


def values(found):
    return np.frombuffer(zlib.decompress(found.data), np.uint8).reshape(found.height, found.width)


def drawn(found, shape, value=1):
    mask = np.zeros(shape, bool)
    mask[found.y : found.y + found.height, found.x : found.x + found.width] = values(found) == value
    return mask


def edge(mask):
    return np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])


# The sparsifier ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sparsifier(tmp_path_factory):
    work = tmp_path_factory.mktemp("sparsifier")
    with running_sparsifier(work / "store", work, max_pixels=str(300**2)) as started:
        yield started.stub


def messages(images, end=None, **header):
    yield Request(header=sparsifier_pb2.SuggestCellsHeader(**{"count": 4, **header}))
    for image in images:
        yield Request(image=image)
    yield Request(end=sparsifier_pb2.SuggestCellsEnd(images=len(images) if end is None else end))


def image_of(number, **fields):
    pixels, _ = scene(number)
    return sparsifier_pb2.SuggestCellsImage(name=f"n{number}", image=encode_tiff(pixels), **fields)


def test_the_sparsifier_chooses_and_repeats_itself(sparsifier):
    images = [image_of(number) for number in range(3)]
    answer = sparsifier.SuggestCells(messages(images, backgrounds=2), timeout=PATIENCE)
    assert answer.method == suggestion_pb2.SUGGESTION_METHOD_TYPICAL
    assert [each.kind for each in answer.suggestions] == [CELL] * 4 + [BACKGROUND] * 2
    assert answer.candidates > 20
    for each in answer.suggestions:
        _, label = scene(int(each.image_id[1:]))
        if each.kind == CELL:
            assert (label[drawn(each, label.shape)] > 0).mean() > 0.7
            assert not edge(drawn(each, label.shape)).any()
        assert not (label[drawn(each, label.shape, 2)] > 0).any()
    assert answer == sparsifier.SuggestCells(messages(images, backgrounds=2), timeout=PATIENCE)
    with_model = [image_of(number, predictions=[encode_labels(scene(number)[1])] * 2) for number in range(3)]
    answer = sparsifier.SuggestCells(messages(with_model), timeout=PATIENCE)
    assert answer.method == suggestion_pb2.SUGGESTION_METHOD_ERRORS


def test_the_sparsifier_refuses_what_does_not_fit(sparsifier):
    good = image_of(0)
    wrong_size = image_of(0, label=encode_labels(np.zeros((5, 5), np.int32)))
    twice = [good, good]
    large = sparsifier_pb2.SuggestCellsImage(name="large", image=encode_tiff(np.zeros((301, 300), np.uint8)))
    for requests, kind, sentence in [
        (iter([]), InvalidArgument, "first message must be the header"),
        (iter([Request(image=good)]), InvalidArgument, "first message must be the header"),
        (list(messages([good]))[:-1], InvalidArgument, "it broke off"),
        (messages([good], end=2), InvalidArgument, "had 1 images, its end says 2"),
        (messages([good], count=0), InvalidArgument, "allowed: 1 to 1000"),
        (messages([wrong_size]), InvalidArgument, "5 x 5 pixels, its image 160 x 160"),
        (messages(twice), InvalidArgument, "Two images are named 'n0'"),
        (messages([large]), ResourceExhausted, "90,300"),
        ([*list(messages([good]))[:1] * 2], InvalidArgument, "second header"),
    ]:
        error = refused(sparsifier.SuggestCells, iter(requests))
        assert isinstance(error, kind)
        assert sentence in error.message


# Projects ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def orchestrator(tmp_path_factory):
    # Images above 300 x 300 pixels are looked at in part.
    settings = {"CELLSPARSE_MAX_PIXELS": str(300**2)}
    with Orchestrator(tmp_path_factory.mktemp("home"), **settings) as started:
        started.healthy("unet")
        started.healthy("sparsifier")
        yield started


@pytest.fixture(scope="module")
def gateway(orchestrator):
    with Gateway(orchestrator.home) as started:
        yield started


def add_project(orchestrator, images):
    made = orchestrator.projects.CreateProject(project_pb2.CreateProjectRequest(name="discs"), timeout=PATIENCE).project
    return made, [add_image(orchestrator, made, pixels) for pixels in images]


def add_image(orchestrator, project, pixels):
    data = encode_tiff(pixels, stack=pixels.ndim == 3)
    make = project_pb2.AddImageRequest
    header = project_pb2.AddImageHeader(project_id=project.id, name="a.tif")
    chunks = [make(chunk=data[begin : begin + 2**20]) for begin in range(0, len(data), 2**20)]
    stream = [make(header=header), *chunks, make(end=project_pb2.FileEnd(size=len(data)))]
    return orchestrator.projects.AddImage(iter(stream), timeout=PATIENCE).image


def label_image(orchestrator, image, label):
    data = encode_labels(label)
    make = project_pb2.ImportLabelsRequest
    header = project_pb2.ImportLabelsHeader(image_id=image.id, author="a")
    stream = [make(header=header), make(chunk=data), make(end=project_pb2.FileEnd(size=len(data)))]
    return orchestrator.projects.ImportLabels(iter(stream), timeout=PATIENCE).image


def suggest(orchestrator, project, **fields):
    request = project_pb2.SuggestRequest(project_id=project.id, **fields)
    return orchestrator.projects.Suggest(request, timeout=LONG_PATIENCE)


def train(orchestrator, project):
    request = project_pb2.TrainProjectRequest(
        dataset=project_pb2.CreateProjectDatasetRequest(project_id=project.id),
        settings=trainer_pb2.TrainingSettings(unet=trainer_pb2.UnetSettings(), steps=5),
    )
    run = orchestrator.projects.TrainProject(request, timeout=PATIENCE).run
    assert state_names(orchestrator.watch(run.id))[-1] == "SUCCEEDED"
    return run


@pytest.fixture(scope="module")
def marked(orchestrator):
    """A project of four images, one with two labelled cells and background, and its scenes by image id."""
    scenes = [scene(number) for number in range(4)]
    project, images = add_project(orchestrator, [pixels for pixels, _ in scenes])
    label = scenes[0][1]
    sparse = np.where((label > 0) & (label <= 2), label, -1).astype(np.int32)
    sparse[:12][label[:12] == 0] = 0
    label_image(orchestrator, images[0], sparse)
    labels = {image.id: label for image, (_, label) in zip(images, scenes, strict=True)}
    return project, labels, {images[0].id: sparse}


def check(answer, labels, sparse):
    for each in answer.suggestions:
        label = labels[each.image_id]
        mask = drawn(each, label.shape)
        if each.image_id in sparse:
            assert (sparse[each.image_id][mask | drawn(each, label.shape, 2)] == -1).all()
        assert not edge(mask).any()
    cells = [each.image_id for each in answer.suggestions if each.kind == CELL]
    assert max(cells.count(image_id) for image_id in cells) <= 3


def test_without_a_model_typical_cells_with_one_its_errors(orchestrator, marked):
    project, labels, sparse = marked
    answer = suggest(orchestrator, project)
    assert answer.method == suggestion_pb2.SUGGESTION_METHOD_TYPICAL
    assert (len(answer.suggestions), answer.images, list(answer.model_ids)) == (10, 4, [])
    check(answer, labels, sparse)
    error = refused(
        orchestrator.projects.Suggest,
        project_pb2.SuggestRequest(project_id=project.id, method=suggestion_pb2.SUGGESTION_METHOD_ERRORS),
    )
    assert isinstance(error, FailedPrecondition)
    assert "no model yet" in error.message
    run = train(orchestrator, project)
    answer = suggest(orchestrator, project, count=6, backgrounds=0)
    assert answer.method == suggestion_pb2.SUGGESTION_METHOD_ERRORS
    assert list(answer.model_ids) == [run.id]
    assert len(answer.suggestions) == 6
    check(answer, labels, sparse)
    assert answer == suggest(orchestrator, project, count=6, backgrounds=0)
    of_dataset = project_pb2.SuggestRequest(dataset_id=run.dataset_id, count=2)
    answer = orchestrator.projects.Suggest(of_dataset, timeout=LONG_PATIENCE)
    assert answer.method == suggestion_pb2.SUGGESTION_METHOD_ERRORS
    assert list(answer.model_ids) == [run.id]
    for method in (suggestion_pb2.SUGGESTION_METHOD_RANDOM, suggestion_pb2.SUGGESTION_METHOD_MINMAX):
        answer = suggest(orchestrator, project, count=5, method=method)
        assert answer.method == method
        assert not answer.model_ids
        check(answer, labels, sparse)
    few = suggest(orchestrator, project, max_images=1, count=50, seed=3)
    assert few.images == 1
    assert len([each for each in few.suggestions if each.kind == CELL]) == 3


def test_a_large_image_is_looked_at_in_part(orchestrator):
    pixels, label = scene(5, size=500, cells=60)
    project, _ = add_project(orchestrator, [pixels])
    answer = suggest(orchestrator, project, count=3)
    cells = [each for each in answer.suggestions if each.kind == CELL]
    assert len(cells) == 3
    assert all((label[drawn(each, label.shape)] > 0).mean() > 0.7 for each in cells)


def test_a_suggestion_in_a_stack_names_its_plane(orchestrator):
    scenes = [scene(number) for number in range(20, 32)]
    project, (image,) = add_project(orchestrator, [np.stack([pixels for pixels, _ in scenes])])
    labels = np.full((len(scenes), *scenes[0][1].shape), -1, np.int32)
    for plane, (_, label) in enumerate(scenes):  # half of each plane is labelled
        labels[plane, :, :80] = label[:, :80]
    label_image(orchestrator, image, labels)
    answer = suggest(orchestrator, project, count=20, backgrounds=2)
    assert answer.images == 1
    cells = [each for each in answer.suggestions if each.kind == CELL]
    planes = [each.plane for each in cells]
    assert 2 <= len(set(planes)) <= 3
    assert max(planes.count(plane) for plane in planes) <= 3
    for each in answer.suggestions:
        assert each.image_id == image.id
        assert each.HasField("plane")
        _, label = scenes[each.plane]
        assert (labels[each.plane][drawn(each, label.shape)] == -1).all()
        if each.kind == CELL:
            assert (label[drawn(each, label.shape)] > 0).mean() > 0.7


@pytest.fixture(scope="module")
def dataset(orchestrator):
    """A dataset of two training items, one of which is partly labelled, and one test item; its scenes by name."""
    scenes = {f"n{number}": scene(number) for number in range(3)}
    label = scenes["n0"][1]
    sparse = np.where((label > 0) & (label <= 2), label, -1).astype(np.int32)
    none = np.where(scenes["n1"][1] == 1, 1, -1).astype(np.int32)
    train = [("n0", "train", scenes["n0"][0], sparse), ("n1", "train", scenes["n1"][0], none)]
    items = [*train, ("n2", "test", *scenes["n2"])]
    with Client(orchestrator.address) as client:
        made = client.create_dataset("plain", items)
    return made, {name: label for name, (_, label) in scenes.items()}, {"n0": sparse, "n1": none}


def test_training_items_of_a_dataset_are_looked_at(orchestrator, dataset):
    made, labels, sparse = dataset
    request = project_pb2.SuggestRequest(dataset_id=made.id, count=6)
    answer = orchestrator.projects.Suggest(request, timeout=LONG_PATIENCE)
    assert answer.method == suggestion_pb2.SUGGESTION_METHOD_TYPICAL
    assert answer.images == 2
    assert {each.image_id for each in answer.suggestions} == {"n0", "n1"}
    assert not any(each.HasField("plane") for each in answer.suggestions)
    check(answer, labels, sparse)
    needs_model = project_pb2.SuggestRequest(dataset_id=made.id, method=suggestion_pb2.SUGGESTION_METHOD_ERRORS)
    error = refused(orchestrator.projects.Suggest, needs_model)
    assert isinstance(error, FailedPrecondition)
    assert f"Dataset {made.id} has no model yet" in error.message


def test_rest_python_and_the_command_take_a_dataset(orchestrator, gateway, dataset, capsys):
    made, _, _ = dataset
    with Client(orchestrator.address) as client:
        found = client.suggest(dataset=made.id, count=2, method="typical", backgrounds=0)
        assert [each.image_id in ("n0", "n1") for each in found.suggestions] == [True, True]
        assert [each.plane for each in found.suggestions] == [None, None]
        with pytest.raises(InvalidArgument, match="for a project or for a dataset; neither is given"):
            client.suggest()
        with pytest.raises(InvalidArgument, match="both are given"):
            client.suggest("a", dataset="b")
    options = ["--address", orchestrator.address, "--count", "2", "--method", "typical", "--backgrounds", "0"]
    assert command(["suggest", "--dataset", "plain", *options, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["dataset"] == made.id
    assert [each["image"] for each in shown["suggestions"]] == [each.image_id for each in found.suggestions]
    with httpx.Client(base_url=gateway.api, timeout=LONG_PATIENCE) as client:
        path = f"/datasets/{made.id}/suggestions"
        answer = client.post(path, json={"count": 2, "method": "typical", "backgrounds": 0})
        named = [each["image_id"] for each in answer.json()["suggestions"]]
        assert named == [each.image_id for each in found.suggestions]
        refusal = client.post(path, json={"project_id": "a"})
        assert refusal.status_code == 422
        assert "the address says which images are meant" in refusal.json()["detail"]


def test_projects_that_cannot_be_looked_at(orchestrator):
    empty, _ = add_project(orchestrator, [])
    for request, kind, sentence in [
        (project_pb2.SuggestRequest(project_id="none"), NotFound, "no project 'none'"),
        (project_pb2.SuggestRequest(project_id=empty.id), FailedPrecondition, "no image yet"),
        (project_pb2.SuggestRequest(), InvalidArgument, "project_id, dataset_id"),
        (project_pb2.SuggestRequest(dataset_id="none"), NotFound, "no dataset 'none'"),
        (project_pb2.SuggestRequest(project_id=empty.id, count=1001), InvalidArgument, "allowed: 0 to 1000"),
    ]:
        error = refused(orchestrator.projects.Suggest, request)
        assert isinstance(error, kind)
        assert sentence in error.message
    blank, _ = add_project(orchestrator, [np.zeros((40, 40), np.uint8)])
    answer = suggest(orchestrator, blank)
    assert not answer.suggestions
    assert answer.candidates == 0
    model = project_pb2.SuggestRequest(project_id=blank.id, model_ids=["run-0"])
    assert isinstance(refused(orchestrator.projects.Suggest, model), NotFound)


# REST, Python and the command line --------------------------------------------------------------------------------


def test_rest_gives_what_grpc_gives(orchestrator, gateway, marked):
    project, labels, _ = marked
    with httpx.Client(base_url=gateway.api, timeout=LONG_PATIENCE) as client:
        path = f"/projects/{project.id}/suggestions"
        answer = client.post(path, json={"count": 3, "method": "typical", "backgrounds": 1})
        assert answer.status_code == 200
        found = answer.json()
        assert found["method"] == "SUGGESTION_METHOD_TYPICAL"
        assert [each["kind"] for each in found["suggestions"]] == ["SUGGESTION_KIND_CELL"] * 3 + [
            "SUGGESTION_KIND_BACKGROUND"
        ]
        assert {each["image_id"] for each in found["suggestions"]} <= set(labels)
        full = client.post(path, json={"count": 3, "method": "SUGGESTION_METHOD_TYPICAL", "backgrounds": 1})
        assert full.json() == found
        for body, status, sentence in [
            ({"method": "clever"}, 422, "method is 'clever'; allowed: auto, random, minmax, typical, errors."),
            ({"count": 1001}, 422, "allowed: 0 to 1000"),
            ({"cells": 1}, 422, "cells"),
            ([], 422, "JSON object"),
        ]:
            refusal = client.post(path, json=body)
            assert refusal.status_code == status
            assert sentence in refusal.json()["detail"]
        assert client.post("/projects/none/suggestions", json={}).status_code == 404


def test_python_and_the_command_say_the_same(orchestrator, marked, capsys):
    project, _, _ = marked
    with Client(orchestrator.address) as client:
        found = client.suggest(project.id, 2, method="typical", backgrounds=0)
        assert [each.kind for each in found.suggestions] == ["cell", "cell"]
        first = found.suggestions[0]
        assert first.values().shape == (first.height, first.width)
        assert set(np.unique(first.values()).tolist()) <= {0, 1, 2}
        with pytest.raises(InvalidArgument, match="count is -1; allowed: 0 to 1000"):
            client.suggest(project.id, -1)
    options = ["--address", orchestrator.address, "--count", "2", "--method", "typical", "--backgrounds", "0"]
    assert command(["suggest", project.id[:8], *options, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["method"] == "typical"
    assert [each["image_id"] for each in shown["suggestions"]] == [each.image_id for each in found.suggestions]
    assert command(["suggest", project.id, *options]) == 0
    text = capsys.readouterr().out
    assert first.reason.split(":")[0] in text
    assert "chosen by typical" in text


def test_without_a_sparsifier_the_call_says_so(tmp_path):
    with Orchestrator(tmp_path, CELLSPARSE_LAUNCHER="static") as orchestrator:
        project, _ = add_project(orchestrator, [scene(0)[0]])
        with pytest.raises(grpc.RpcError) as failure:
            suggest(orchestrator, project)
        assert failure.value.code() == grpc.StatusCode.UNAVAILABLE
        assert "sparsifier" in failure.value.details()
