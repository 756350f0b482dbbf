"""Projects through a real orchestrator and trainer server (with a backend that needs no framework)."""

import os
import random
import signal
import threading
import time
import zlib

import grpc
import numpy as np
import pytest
from scipy import ndimage
from support.limits import PATIENCE
from support.orchestrator import Orchestrator, refused, state_names, until
from support.tiny_dataset import blobs

from cellsparse_common.datasets import read_image, read_labels, read_manifest
from cellsparse_common.errors import FailedPrecondition, InvalidArgument, NotFound, OutOfRange, ResourceExhausted
from cellsparse_common.imaging.images import decode_image, encode_tiff
from cellsparse_common.imaging.labels import encode_labels
from cellsparse_common.imaging.ome_tiff import encode_ome_image
from cellsparse_common.storage import FolderStore
from cellsparse_orchestrator.projects.label_numbers import NEW, deflate, inflate
from cellsparse_proto.v1 import common_pb2, dataset_pb2, orchestrator_pb2, project_pb2, trainer_pb2

SLOW = {"learning_rate": 0.9, "patience": 0}  # the fake backend sleeps 0.05 s in every step; none ends early
UNET = trainer_pb2.TrainingSettings(unet=trainer_pb2.UnetSettings())


@pytest.fixture(scope="module")
def orchestrator(tmp_path_factory):
    with Orchestrator(tmp_path_factory.mktemp("home")) as started:
        started.healthy("unet")
        yield started


@pytest.fixture
def project(orchestrator):
    return new_project(orchestrator)


def new_project(orchestrator, name="nuclei"):
    return orchestrator.projects.CreateProject(project_pb2.CreateProjectRequest(name=name), timeout=PATIENCE).project


def stream(message, header, data, size=None):
    yield message(header=header)
    for begin in range(0, len(data), 2**20):
        yield message(chunk=data[begin : begin + 2**20])
    yield message(end=project_pb2.FileEnd(size=len(data) if size is None else size))


def add_image(orchestrator, project, array, name="a.tif", **header):
    data = array if isinstance(array, bytes) else encode_tiff(array, stack=array.ndim == 3)
    header = project_pb2.AddImageHeader(project_id=project.id, name=name, **header)
    return orchestrator.projects.AddImage(stream(project_pb2.AddImageRequest, header, data), timeout=PATIENCE).image


def import_labels(orchestrator, image, data, **header):
    header = project_pb2.ImportLabelsHeader(image_id=image.id, author="a", **header)
    requests = stream(project_pb2.ImportLabelsRequest, header, data)
    return orchestrator.projects.ImportLabels(requests, timeout=PATIENCE).image


def export(orchestrator, image, layer="", kind=0):
    request = project_pb2.ExportLabelsRequest(image_id=image.id, layer_id=layer, format=kind)
    return b"".join(answer.chunk for answer in orchestrator.projects.ExportLabels(request, timeout=PATIENCE))


def exported(orchestrator, image, layer=""):
    return decode_image(export(orchestrator, image, layer), max_pixels=2**26, labels=True, stacks=True).array


def test_a_stack_of_floats_is_seen_as_tiles(orchestrator, project):
    pixels = np.random.default_rng(0).normal(size=(3, 600, 40)).astype(np.float32)
    pixels[2] += 5
    image = add_image(orchestrator, project, pixels, spacing=[2.0, 0.5, 0.5])
    assert (image.planes, image.height, image.width, image.channels) == (3, 600, 40, 1)
    assert (image.dtype, image.levels, list(image.spacing)) == ("uint16", 2, [2.0, 0.5, 0.5])
    scaled = np.rint((pixels.astype(float) - pixels.min()) / np.ptp(pixels.astype(float)) * 65535)
    place = project_pb2.TilePlace(level=0, x=0, y=1, plane=2)
    request = project_pb2.GetImageTileRequest(image_id=image.id, place=place)
    tile = orchestrator.projects.GetImageTile(request, timeout=PATIENCE)
    found = np.frombuffer(zlib.decompress(tile.data), "<u2").reshape(tile.height, tile.width)
    assert np.abs(found - scaled[2, 512:]).max() <= 1
    request.place.level, request.place.y = 1, 0
    tile = orchestrator.projects.GetImageTile(request, timeout=PATIENCE)
    assert (tile.height, tile.width) == (300, 20)
    found = np.frombuffer(zlib.decompress(tile.data), "<u2").reshape(300, 20)
    assert np.abs(found - scaled[2].reshape(300, 2, 20, 2).mean((1, 3))).max() <= 2
    (contrast,) = image.contrast
    low, high = np.percentile(scaled, (0.1, 99.9))
    assert abs(contrast.low - low) < 150
    assert abs(contrast.high - high) < 150
    for change in ({"level": 2}, {"plane": 3}, {"x": 1}):
        bad = project_pb2.GetImageTileRequest(image_id=image.id, place=change)
        assert isinstance(refused(orchestrator.projects.GetImageTile, bad), OutOfRange)
    bad = project_pb2.GetImageTileRequest(image_id=image.id, place={"x": 0}, channel=1)
    assert "no channel 1; allowed: 0 to 0" in refused(orchestrator.projects.GetImageTile, bad).message


def test_bad_uploads_leave_nothing(orchestrator, project):
    good = encode_tiff(blobs()[0])
    header = project_pb2.AddImageHeader(project_id=project.id, name="a.tif")
    message = project_pb2.AddImageRequest
    call = orchestrator.projects.AddImage
    for requests, sentence in [
        (stream(message, header, good, size=5), "The end names 5 bytes"),
        (stream(message, header, b"junk"), "not a TIFF, PNG or JPEG file"),
        (iter([message(header=header), message(chunk=good)]), "without its end"),
        (iter([message(chunk=good)]), "first message of an upload must be its header"),
        (stream(message, project_pb2.AddImageHeader(project_id="none", name="a"), good), "no project 'none'"),
        (
            stream(message, project_pb2.AddImageHeader(project_id=project.id, name="a", spacing=[1, 1, 1]), good),
            "spacing has 3 numbers; the image has 2 axes",
        ),
    ]:
        assert sentence in refused(call, requests).message
    listed = orchestrator.projects.ListImages(project_pb2.ListImagesRequest(project_id=project.id), timeout=PATIENCE)
    assert not listed.images
    assert not (orchestrator.store / "projects" / project.id).exists()


def test_an_image_too_large_for_one_prediction_is_predicted_in_windows(tmp_path):
    with Orchestrator(tmp_path, CELLSPARSE_MAX_PIXELS=str(300**2)) as orchestrator:
        project = new_project(orchestrator)
        small = add_image(orchestrator, project, blobs(64, seed=0)[0])
        annotate(orchestrator, small)
        run = train(orchestrator, project, settings={"steps": 5})
        assert state_names(orchestrator.watch(run.id))[-1] == "SUCCEEDED"
        image = add_image(orchestrator, project, np.tile(blobs(64, seed=0)[0], (8, 9)))
        ask = project_pb2.PredictLayerRequest(image_id=image.id, model_id=run.id)
        layer = orchestrator.projects.PredictLayer(ask, timeout=PATIENCE).layer
        label = exported(orchestrator, image, layer.id)
        assert (label > 0).any()
        # Each blob is one cell, in every repetition, whatever windows saw it.
        assert layer.cells == len(np.unique(label[label > 0])) == ndimage.label(label > 0)[1]
        stack = add_image(orchestrator, project, np.zeros((10, 200, 200), np.uint8), axes="ZYX")
        ask.image_id = stack.id
        assert "400,000 voxels" in refused(orchestrator.projects.PredictLayer, ask).message


def test_limits_of_images_are_settings(tmp_path):
    settings = {"CELLSPARSE_MAX_PROJECT_PIXELS": "5000", "CELLSPARSE_MAX_PROJECT_FILE_MIB": "1"}
    with Orchestrator(tmp_path, CELLSPARSE_LAUNCHER="static", **settings) as orchestrator:
        project = new_project(orchestrator)
        header = project_pb2.AddImageHeader(project_id=project.id, name="a.tif")
        call = orchestrator.projects.AddImage
        large = stream(project_pb2.AddImageRequest, header, encode_tiff(np.zeros((100, 51), np.uint8)))
        error = refused(call, large)
        assert isinstance(error, ResourceExhausted)
        assert "5,100" in error.message
        error = refused(call, stream(project_pb2.AddImageRequest, header, bytes(2**20 + 1)))
        assert "larger than 1 MiB" in error.message


@pytest.mark.parametrize("kind", ["tiff", "geojson", "roi"])
def test_labels_come_back_as_they_went_out(orchestrator, project, kind):
    pixels, label = blobs(600, seed=1)
    image = add_image(orchestrator, project, pixels)
    label[:200] = np.where(label[:200] == 0, -1, label[:200])
    counted = import_labels(orchestrator, image, encode_labels(label))
    assert (counted.cells, counted.labelled_pixels, counted.revision) == (4, (label >= 0).sum(), 1)
    assert (exported(orchestrator, image) == label).all()
    if kind != "tiff":  # the background comes back, too
        number = {"geojson": trainer_pb2.OUTPUT_FORMAT_GEOJSON, "roi": trainer_pb2.OUTPUT_FORMAT_IMAGEJ_ROI}[kind]
        second = add_image(orchestrator, project, pixels)
        import_labels(orchestrator, second, export(orchestrator, image, kind=number))
        assert (exported(orchestrator, second) == label).all()
    # What is there stays; undo takes the import back.
    rest = np.full_like(label, 9)
    rest[:, 0] = -1
    import_labels(orchestrator, image, encode_labels(rest), label_kind=dataset_pb2.LABEL_KIND_INSTANCES)
    assert (exported(orchestrator, image) == np.where((label < 0) & (rest > 0), 5, label)).all()
    orchestrator.projects.UndoEdit(project_pb2.UndoEditRequest(image_id=image.id, author="a"), timeout=PATIENCE)
    assert (exported(orchestrator, image) == label).all()


def test_any_annotation_comes_back(orchestrator, project):
    """Background alone, and a single cell in two parts."""
    for index, values in enumerate(([0, 0, -1], [1, -1, 1])):
        image = add_image(orchestrator, project, np.zeros((4, 3), np.uint8), name=str(index))
        label = np.tile(np.array(values, np.int32), (4, 1))
        import_labels(orchestrator, image, encode_labels(label))
        assert (exported(orchestrator, image) == label).all()
    header = project_pb2.ImportLabelsHeader(image_id=image.id, author="a")
    for label, sentence in [
        (np.full((4, 3), -1, np.int32), "holds no label"),
        (np.tile(np.array([1, 0, 1], np.int32), (4, 1)), "looks like a binary mask"),
        (np.ones((4, 4), np.int32), "is 4 x 4 pixels, its image 4 x 3"),
    ]:
        requests = stream(project_pb2.ImportLabelsRequest, header, encode_labels(label))
        assert sentence in refused(orchestrator.projects.ImportLabels, requests).message


def annotate(orchestrator, image, seed=0, offset=0):
    """Mark two cells and some background of an image of blobs."""
    _, label = blobs(64, seed=seed)
    numbers = np.full(label.shape, 0, np.uint32)
    numbers[:30] = 1
    numbers[label == 1], numbers[label == 2] = NEW, NEW + 1
    patch = project_pb2.LabelPatch(x=offset, y=offset, width=64, height=64, data=deflate(numbers))
    request = project_pb2.EditAnnotationRequest(
        image_id=image.id, base_revision=image.revision, author="a", patches=[patch]
    )
    orchestrator.projects.EditAnnotation(request, timeout=PATIENCE)
    return np.where(numbers >= NEW, numbers.astype(int) - NEW + 1, numbers.astype(int) - 1)


def train(orchestrator, project, request_id="", name="", **fields):
    settings = trainer_pb2.TrainingSettings()
    settings.CopyFrom(UNET)
    for key, value in fields.pop("settings", {}).items():
        setattr(settings, key, value)
    request = project_pb2.TrainProjectRequest(
        dataset={"project_id": project.id, **fields}, settings=settings, request_id=request_id, name=name
    )
    return orchestrator.projects.TrainProject(request, timeout=PATIENCE).run


def test_from_marks_to_a_layer(orchestrator, project):
    first = add_image(orchestrator, project, blobs(64, seed=0)[0], name="ä b/c.tif")
    second = add_image(orchestrator, project, blobs(64, seed=1)[0], name="-ä b/c.tif")
    add_image(orchestrator, project, blobs(64, seed=2)[0], name="not annotated")
    nothing = project_pb2.TrainProjectRequest(dataset={"project_id": project.id}, settings=UNET)
    error = refused(orchestrator.projects.TrainProject, nothing)
    assert isinstance(error, FailedPrecondition)
    assert "no annotated cell yet: mark at least one cell" in error.message
    label = annotate(orchestrator, first)
    annotate(orchestrator, second, seed=1)

    run = train(orchestrator, project, request_id="r1", val_image_ids=[second.id])
    assert train(orchestrator, project, request_id="r1", val_image_ids=[second.id]).id == run.id
    manifest = read_manifest(FolderStore(orchestrator.store), run.dataset_id)
    assert [(item.name, item.split, item.cells) for item in manifest.items] == [
        ("b-c.tif", common_pb2.SPLIT_TRAIN, 2),
        ("b-c.tif 2", common_pb2.SPLIT_VAL, 2),
    ]
    store = FolderStore(orchestrator.store)
    assert (read_labels(store, manifest.items[0]) == label).all()
    assert (read_image(store, manifest.items[0]) == blobs(64, seed=0)[0]).all()
    assert manifest.dataset.name == "nuclei"
    runs = orchestrator.projects.ListProjectRuns(
        project_pb2.ListProjectRunsRequest(project_id=project.id), timeout=PATIENCE
    ).runs
    assert [one.id for one in runs] == [run.id]
    assert state_names(orchestrator.watch(run.id))[-1] == "SUCCEEDED"

    ask = project_pb2.PredictLayerRequest(image_id=first.id, model_id=run.id)
    layer = orchestrator.projects.PredictLayer(ask, timeout=PATIENCE).layer
    assert (layer.model_id, layer.run_id, layer.revision) == (run.id, "", 1)
    assert layer.step > 0
    assert layer.cells == 4
    label = exported(orchestrator, first, layer.id)
    place = project_pb2.TilePlace(level=0)
    tile = orchestrator.projects.GetLabelTile(
        project_pb2.GetLabelTileRequest(image_id=first.id, layer_id=layer.id, place=place), timeout=PATIENCE
    )
    assert tile.revision == 1
    assert (inflate(tile.data, 64, 64) == np.where(label > 0, label + 1, 0)).all()
    cells = orchestrator.projects.ListCells(
        project_pb2.ListCellsRequest(image_id=first.id, layer_id=layer.id), timeout=PATIENCE
    )
    assert [cell.label for cell in cells.cells] == [2, 3, 4, 5]
    assert all(0 < cell.score <= 1 for cell in cells.cells)
    marked = orchestrator.projects.ListCells(project_pb2.ListCellsRequest(image_id=first.id), timeout=PATIENCE)
    assert marked.cells
    assert not any(cell.HasField("score") for cell in marked.cells)
    again = orchestrator.projects.PredictLayer(ask, timeout=PATIENCE).layer
    assert (again.id, again.revision) == (layer.id, 2)
    assert (exported(orchestrator, first, layer.id) == label).all()
    listed = orchestrator.projects.ListLayers(project_pb2.ListLayersRequest(image_id=first.id), timeout=PATIENCE)
    assert list(listed.layers) == [again]
    orchestrator.projects.DeleteLayer(project_pb2.DeleteLayerRequest(layer_id=layer.id), timeout=PATIENCE)
    listed = orchestrator.projects.ListLayers(project_pb2.ListLayersRequest(image_id=first.id), timeout=PATIENCE)
    assert not listed.layers
    missing = project_pb2.ExportLabelsRequest(image_id=first.id, layer_id=layer.id)
    assert isinstance(refused(orchestrator.projects.ExportLabels, missing), NotFound)
    ask.model_id = "none"
    assert "no model and no run 'none'" in refused(orchestrator.projects.PredictLayer, ask).message


def test_channels_keep_their_names(orchestrator, project):
    pixels = np.stack([np.zeros((64, 64), np.uint8), blobs(64, seed=0)[0]], axis=-1)
    file = encode_ome_image(pixels, stack=False, channels=("DAPI", "GFP"), name="a.ome.tif")
    image = add_image(orchestrator, project, file)
    assert list(image.channel_names) == ["DAPI", "GFP"]
    assert list(add_image(orchestrator, project, file, channels=["Nuclei", "Tubulin"]).channel_names) == [
        "Nuclei",
        "Tubulin",
    ]
    assert list(add_image(orchestrator, project, encode_tiff(pixels)).channel_names) == ["0", "1"]
    assert not add_image(orchestrator, project, pixels[..., 1]).channel_names
    header = project_pb2.AddImageHeader(project_id=project.id, name="x", channels=["DAPI"])
    error = refused(orchestrator.projects.AddImage, stream(project_pb2.AddImageRequest, header, file))
    assert error.message == "There are 1 names of channels; the image has 2."

    annotate(orchestrator, image)
    settings = trainer_pb2.TrainingSettings(unet=trainer_pb2.UnetSettings(), channels=["gfp"], steps=5)
    request = project_pb2.TrainProjectRequest(dataset={"project_id": project.id}, settings=settings)
    run = orchestrator.projects.TrainProject(request, timeout=PATIENCE).run
    (item,) = read_manifest(FolderStore(orchestrator.store), run.dataset_id).items
    assert list(item.channels) == ["DAPI", "GFP"]
    assert state_names(orchestrator.watch(run.id))[-1] == "SUCCEEDED"

    def predict(*channels, image=image):
        return project_pb2.PredictLayerRequest(image_id=image.id, model_id=run.id, channels=channels)

    found = [
        orchestrator.projects.PredictLayer(predict(*asked), timeout=PATIENCE).layer.cells
        for asked in ((), ("GFP",), ("dapi",))
    ]
    assert found == [4, 4, 0]
    assert "Channels: 0 (DAPI), 1 (GFP)" in refused(orchestrator.projects.PredictLayer, predict("RFP")).message
    swapped = encode_tiff(np.ascontiguousarray(pixels[..., ::-1]))
    for names, cells in ((("gfp", "DAPI"), 4), (("RFP", "Cy5"), 0)):  # by name, and where there is none by number
        other = add_image(orchestrator, project, swapped, name="b.tif", channels=names)
        assert orchestrator.projects.PredictLayer(predict(image=other), timeout=PATIENCE).layer.cells == cells


def test_the_newest_checkpoint_of_a_training_predicts(orchestrator, project):
    image = add_image(orchestrator, project, blobs(64, seed=0)[0])
    annotate(orchestrator, image)
    run = train(orchestrator, project, settings={"steps": 100_000, "patience": 0, **SLOW})
    ask = project_pb2.PredictLayerRequest(image_id=image.id, model_id=run.id)
    first = until(lambda: _layer_or_none(orchestrator, ask))
    assert (first.model_id, first.run_id, first.revision) == ("", run.id, 1)
    assert first.step > 0
    later = until(lambda: (found := _layer_or_none(orchestrator, ask)).step > first.step and found)
    assert later.id == first.id
    orchestrator.runs.CancelRun(orchestrator_pb2.CancelRunRequest(run_id=run.id), timeout=PATIENCE)
    until(lambda: orchestrator.run(run.id).state == common_pb2.RUN_STATE_CANCELLED)
    assert "has ended (CANCELLED) without a model" in refused(orchestrator.projects.PredictLayer, ask).message


def _layer_or_none(orchestrator, ask):
    try:
        return orchestrator.projects.PredictLayer(ask, timeout=PATIENCE).layer
    except grpc.RpcError as error:
        assert "has no checkpoint yet" in error.details()  # noqa: PT017
        return None


def test_bad_splits_are_refused(orchestrator, project):
    image = add_image(orchestrator, project, blobs()[0])
    annotate(orchestrator, image)
    for fields, kind, sentence in [
        ({"val_image_ids": ["im-other"]}, InvalidArgument, "val_image_ids names 'im-other', which is no image"),
        ({"val_image_ids": [image.id], "test_image_ids": [image.id]}, InvalidArgument, "give one"),
        ({"val_image_ids": [image.id]}, FailedPrecondition, "mark a cell in another image"),
    ]:
        request = project_pb2.TrainProjectRequest(dataset={"project_id": project.id, **fields}, settings=UNET)
        error = refused(orchestrator.projects.TrainProject, request)
        assert isinstance(error, kind)
        assert sentence in error.message


def test_the_annotated_parts_of_a_large_image_are_trained_on(orchestrator, project):
    pixels = np.random.default_rng(0).integers(0, 255, (4200, 4200), dtype=np.uint8)
    image = add_image(orchestrator, project, pixels)
    annotate(orchestrator, image)
    fresh = orchestrator.projects.GetImage(project_pb2.GetImageRequest(image_id=image.id), timeout=PATIENCE).image
    annotate(orchestrator, fresh, offset=4136)
    request = project_pb2.CreateProjectDatasetRequest(project_id=project.id, name="parts")
    dataset = orchestrator.projects.CreateProjectDataset(request, timeout=PATIENCE).dataset
    assert (dataset.name, dataset.items, dataset.cells) == ("parts", 2, 4)
    store = FolderStore(orchestrator.store)
    first, second = read_manifest(store, dataset.id).items
    assert (read_image(store, first) == pixels[: first.shape[0], : first.shape[1]]).all()
    assert (read_image(store, second) == pixels[-second.shape[0] :, -second.shape[1] :]).all()
    assert max(first.shape) <= 256
    assert max(second.shape) <= 400


def test_aliases(orchestrator):
    stub = orchestrator.projects
    alias = project_pb2.Alias(backend="unet", name="default", project_id="pr-1")
    get = project_pb2.GetAliasRequest(backend="unet", name="default")
    assert isinstance(refused(stub.GetAlias, get), NotFound)
    assert stub.SetAlias(project_pb2.SetAliasRequest(alias=alias), timeout=PATIENCE).alias == alias
    alias.model_id = "run-1"
    stub.SetAlias(project_pb2.SetAliasRequest(alias=alias), timeout=PATIENCE)
    assert stub.GetAlias(get, timeout=PATIENCE).alias == alias
    stub.DeleteAlias(project_pb2.DeleteAliasRequest(backend="unet", name="default"), timeout=PATIENCE)
    stub.DeleteAlias(project_pb2.DeleteAliasRequest(backend="unet", name="default"), timeout=PATIENCE)
    assert isinstance(refused(stub.GetAlias, get), NotFound)


def test_an_orchestrator_killed_in_the_middle_of_edits_leaves_whole_states(tmp_path):
    """Each edit fills the same square over four tiles with one number: no mixture may ever be seen."""
    random.seed(1)
    image_id, known = "", 0
    for _ in range(2):
        with Orchestrator(tmp_path, CELLSPARSE_LAUNCHER="static") as orchestrator:
            if not image_id:
                project = new_project(orchestrator)
                image_id = add_image(orchestrator, project, np.zeros((1024, 1024), np.uint8)).id
            sent = []
            editing = threading.Thread(target=_edit_on, args=(orchestrator, image_id, sent), daemon=True)
            editing.start()
            until(lambda: len(sent) > 3)  # noqa: B023
            time.sleep(random.random() / 10)
            os.kill(orchestrator.pid, signal.SIGKILL)
            editing.join(PATIENCE)
            orchestrator.wait(PATIENCE)
        with Orchestrator(tmp_path, CELLSPARSE_LAUNCHER="static") as orchestrator:
            image = orchestrator.projects.GetImage(
                project_pb2.GetImageRequest(image_id=image_id), timeout=PATIENCE
            ).image
            label = exported(orchestrator, image)
            assert len(np.unique(label[448:576, 448:576])) == 1
            assert image.labelled_pixels == 128 * 128
            assert (image.cells, image.revision > known) == (1, True)
            assert image.revision >= sent[-1]
            known = image.revision


def _edit_on(orchestrator, image_id, sent):
    patch = project_pb2.LabelPatch(
        x=448, y=448, width=128, height=128, data=deflate(np.full((128, 128), NEW, np.uint32))
    )
    request = project_pb2.EditAnnotationRequest(image_id=image_id, base_revision=2**40, author="a", patches=[patch])
    try:
        while True:
            sent.append(orchestrator.projects.EditAnnotation(request, timeout=PATIENCE).revision)
    except grpc.RpcError:
        return
