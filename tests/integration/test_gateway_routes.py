"""Every route of the gateway, in front of a real orchestrator."""

import base64
import io
import json
import zipfile
import zlib

import httpx
import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image
from support.gateway import Gateway, Marks, read_events
from support.limits import LONG_PATIENCE, PATIENCE
from support.orchestrator import Orchestrator, until
from support.tiny_dataset import blobs

from cellsparse_common.imaging.images import encode_tiff
from cellsparse_common.imaging.labels import encode_labels


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def gateway(home):
    with Orchestrator(home) as orchestrator, Gateway(home) as server:
        orchestrator.healthy("unet")
        orchestrator.healthy("sparsifier")
        yield server


@pytest.fixture(scope="module")
def api(gateway):
    with httpx.Client(base_url=gateway.api, timeout=PATIENCE) as client:
        yield client


@pytest.fixture
def project(api):
    return api.post("/projects", json={"name": "Nuclei"}).raise_for_status().json()


@pytest.fixture
def image(api, project):
    pixels, _ = blobs(96, seed=1)
    answer = api.post(f"/projects/{project['id']}/images", params={"name": "a.tif"}, content=encode_tiff(pixels))
    return answer.raise_for_status().json()


@pytest.fixture(scope="module")
def dataset(api):
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        for number in range(5):
            pixels, label = blobs(64, seed=number)
            file.writestr(f"set/images/i{number}.tif", encode_tiff(pixels))
            file.writestr(f"set/masks/i{number}.tif", encode_labels(label))
        file.writestr("set/README.txt", "no image")
    answer = api.post("/datasets", params={"name": "zipped"}, content=archive.getvalue())
    return answer.raise_for_status().json()


@pytest.fixture(scope="module")
def model(api, dataset):
    settings = {"unet": {}, "steps": 3}
    run = api.post("/runs", json={"dataset_id": dataset["id"], "settings": settings}).raise_for_status().json()
    events = list(read_events(api, f"/runs/{run['id']}/events"))
    assert events[-1].name == "end"
    assert json.loads(events[-2].data)["state"] == "RUN_STATE_SUCCEEDED"
    return api.get(f"/models/{run['id']}").raise_for_status().json()


def read_tiff(content: bytes) -> np.ndarray:
    return tifffile.imread(io.BytesIO(content))


def problem(answer: httpx.Response, status: int) -> dict:
    """The problem that an answer is."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    content = answer.json()
    assert content["status"] == status
    assert content["detail"].endswith(".")
    return content


def test_projects_are_made_renamed_listed_and_deleted(api, project):
    renamed = api.patch(f"/projects/{project['id']}", json={"name": "Zellkerne"}).json()
    assert renamed["name"] == "Zellkerne"
    assert api.get(f"/projects/{project['id']}").json() == renamed
    listed = api.get("/projects", params={"page_size": 1}).json()
    assert [entry["id"] for entry in listed["projects"]] == [project["id"]]
    assert api.delete(f"/projects/{project['id']}").status_code == 204
    problem(api.get(f"/projects/{project['id']}"), 404)


def test_refusals_name_the_field_and_what_is_allowed(api, project):
    found = problem(api.post("/projects", json={"name": "x" * 101}), 422)
    assert found["errors"] == [{"field": "name", "detail": "name has 101 characters; allowed: at most 100."}]
    assert "no field named" in problem(api.post("/projects", json={"nane": "x"}), 422)["detail"]
    assert "not JSON" in problem(api.post("/projects", content=b"{"), 422)["detail"]
    assert "JSON object" in problem(api.post("/projects", content=b"[]"), 422)["detail"]
    assert problem(api.get("/projects/UPPER"), 422)["errors"][0]["field"] == "project"
    assert "nothing at" in problem(api.get("/nowhere"), 404)["detail"]
    assert problem(api.put("/projects"), 405)["title"] == "Method Not Allowed"
    bad = api.post(f"/projects/{project['id']}/images", params={"name": "a.tif"}, content=b"no image")
    assert "not a TIFF" in problem(bad, 422)["detail"]
    assert api.get(f"/projects/{project['id']}/images").json()["images"] == []


def test_an_image_comes_back_as_tiles_and_thumbnail(api, project, image):
    pixels, _ = blobs(96, seed=1)
    assert api.get(f"/projects/{project['id']}/images").json()["images"] == [image]
    assert api.get(f"/images/{image['id']}").json() == image
    for coding in ("identity", "deflate", "gzip"):
        tile = api.get(f"/images/{image['id']}/tiles/0/0/0", headers={"Accept-Encoding": coding})
        assert tile.headers.get("content-encoding", "") == ("deflate" if coding == "deflate" else "")
        assert (tile.headers["x-tile-height"], tile.headers["x-tile-width"]) == ("96", "96")
        assert np.array_equal(np.frombuffer(tile.content, np.uint8).reshape(96, 96), pixels)
    assert "immutable" in tile.headers["cache-control"]
    again = api.get(f"/images/{image['id']}/tiles/0/0/0", headers={"If-None-Match": tile.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    problem(api.get(f"/images/{image['id']}/tiles/0/5/0"), 404)
    png = api.get(f"/images/{image['id']}/thumbnail", params={"size": 48})
    assert png.headers["content-type"] == "image/png"
    assert Image.open(io.BytesIO(png.content)).size == (48, 48)
    assert api.delete(f"/images/{image['id']}").status_code == 204
    problem(api.get(f"/images/{image['id']}"), 404)


def test_a_colour_image_has_a_colour_thumbnail(api, project):
    pixels = np.zeros((40, 20, 3), np.uint8)
    pixels[:20, :, 0] = 255
    content = encode_tiff(pixels)
    made = api.post(f"/projects/{project['id']}/images", params={"name": "rgb.tif"}, content=content).json()
    picture = Image.open(io.BytesIO(api.get(f"/images/{made['id']}/thumbnail", params={"size": 40}).content))
    assert picture.mode == "RGB"
    assert picture.size == (20, 40)
    assert picture.getpixel((5, 5))[1] == 0


def test_edits_undo_and_redo(api, image):
    marks = Marks(api, image["id"])
    path = f"/images/{image['id']}/labels/tiles/0/0/0"
    empty = api.get(path)
    assert (empty.status_code, empty.headers["x-revision"], empty.headers["x-tile-width"]) == (204, "0", "96")
    made = marks.add(4, 6, np.full((5, 7), 0x80000000))
    assert made["new_labels"] == [2]
    tile = api.get(path)
    numbers = np.frombuffer(tile.content, "<u4").reshape(96, 96)
    assert set(numbers[6:11, 4:11].flat) == {2}
    assert np.count_nonzero(numbers) == 35
    unchanged = api.get(path, headers={"If-None-Match": tile.headers["etag"]})
    assert (unchanged.status_code, unchanged.headers["x-revision"]) == (304, tile.headers["x-revision"])
    assert [cell["label"] for cell in api.get(f"/images/{image['id']}/cells").json()["cells"]] == [2]
    stale = marks.request(4, 6, np.ones((5, 7)), author="someone-else", base=0)
    problem(api.post(f"/images/{image['id']}/edits", json=stale), 409)
    undone = api.post(f"/images/{image['id']}/undo", json={"author": "tester"}).json()
    patch = undone["patches"][0]
    assert not any(zlib.decompress(base64.b64decode(patch["data"])))
    redone = api.post(f"/images/{image['id']}/redo", json={"author": "tester"}).json()
    assert redone["revision"] > undone["revision"]
    assert api.get(f"/images/{image['id']}").json()["cells"] == 1


def test_labels_go_out_and_in_as_files(api, image, project):
    _, labels = blobs(96, seed=1)
    added = api.post(f"/images/{image['id']}/labels", params={"kind": "instances"}, content=encode_labels(labels))
    assert added.raise_for_status().json()["cells"] == labels.max()
    tiff = api.get(f"/images/{image['id']}/labels")
    assert tiff.headers["content-disposition"] == 'attachment; filename="a-labels.tif"'
    assert np.array_equal(read_tiff(tiff.content) > 0, labels > 0)
    features = api.get(f"/images/{image['id']}/labels", params={"format": "geojson"}).json()
    classes = [(each["properties"].get("classification") or {}).get("name") for each in features["features"]]
    assert (len(classes), classes.count("Background")) == (labels.max() + 1, 1)
    roi = api.get(f"/images/{image['id']}/labels", params={"format": "roi"})
    assert len(zipfile.ZipFile(io.BytesIO(roi.content)).namelist()) == labels.max() + 1  # and the background
    problem(api.get(f"/images/{image['id']}/labels", params={"format": "svg"}), 422)


def test_a_project_trains_and_its_model_predicts_a_layer(api, project, image):
    _, labels = blobs(96, seed=1)
    api.post(f"/images/{image['id']}/labels", content=encode_labels(labels)).raise_for_status()
    refused = api.post(f"/projects/{project['id']}/train", json={"backend": "unknown"})
    assert "allowed: cellpose, stardist, unet" in problem(refused, 422)["detail"]
    wrong = {"backend": "unet", "settings": {"n_rays": 3}}
    assert (
        "unet has no setting 'n_rays'"
        in problem(api.post(f"/projects/{project['id']}/train", json=wrong), 422)["detail"]
    )
    asked = {"backend": "unet", "preset": "fast", "settings": {"steps": 3, "base_channels": 8}, "name": "first"}
    run = api.post(f"/projects/{project['id']}/train", json=asked).raise_for_status().json()
    assert run["settings"]["preset"] == "PRESET_FAST"
    assert run["settings"]["unet"]["base_channels"] == 8
    assert [event.name for event in read_events(api, f"/runs/{run['id']}/events")][-1] == "end"
    listed = api.get(f"/projects/{project['id']}/runs").json()["runs"]
    assert [entry["state"] for entry in listed] == ["RUN_STATE_SUCCEEDED"]
    layer = api.post(f"/images/{image['id']}/layers", json={"model_id": run["id"]}).raise_for_status().json()
    assert api.get(f"/images/{image['id']}/layers").json()["layers"] == [layer]
    assert api.get(f"/images/{image['id']}/cells", params={"layer": layer["id"]}).status_code == 200
    assert api.get(f"/images/{image['id']}/labels/tiles/0/0/0", params={"layer": layer["id"]}).status_code in (200, 204)
    assert api.delete(f"/layers/{layer['id']}").status_code == 204
    made = api.post(f"/projects/{project['id']}/dataset", json={"name": "of marks"}).raise_for_status().json()
    assert made["cells"] == labels.max()


def test_a_part_of_a_file_becomes_an_image(api, project):
    movie = np.arange(3 * 4 * 2 * 20 * 30, dtype=np.uint16).reshape(3, 4, 2, 20, 30)  # TZCYX
    stream = io.BytesIO()
    tifffile.imwrite(stream, movie, imagej=True, metadata={"axes": "TZCYX"})

    def add(**part):
        params = {"name": "m.tif", **part}
        return api.post(f"/projects/{project['id']}/images", params=params, content=stream.getvalue())

    assert "choose a time point with time (--time)" in problem(add(), 422)["detail"]
    assert problem(add(time=3), 422)["errors"][0]["field"] == "time"
    assert "so that series 1 does not exist" in problem(add(series=1, time=0), 422)["detail"]
    assert problem(add(time="0:2"), 422)["errors"][0]["field"] == "time"
    stack = add(time=1).raise_for_status().json()
    assert (stack["planes"], stack["channels"]) == (4, 2)
    plane = add(time=1, z=2).raise_for_status().json()
    assert (plane["planes"], plane["channels"]) == (1, 2)
    tile = api.get(f"/images/{plane['id']}/tiles/0/0/0", params={"channel": 1})
    assert np.array_equal(np.frombuffer(tile.content, np.uint16).reshape(20, 30), movie[1, 2, 1])


@pytest.mark.parametrize("form", [2, 3])
def test_an_ome_zarr_in_the_store_is_read_there(api, home, project, form):
    """Of a plane only its chunks are read: the others are broken."""
    pixels = np.random.default_rng(0).integers(0, 255, (2, 3, 40, 50)).astype(np.uint8)  # CZYX
    path = home / "store" / "imports" / "plate 1" / f"field-{form}.zarr"
    group = zarr.open_group(path, mode="w", zarr_format=form)
    keys = {"chunk_key_encoding": {"name": "v2", "separator": "/"}} if form == 2 else {}
    group.create_array("0", shape=pixels.shape, chunks=(1, 1, 32, 32), dtype="u1", **keys)[:] = pixels
    scale = [{"type": "scale", "scale": [1, 2, 0.5, 0.5]}]
    about = {"axes": ["c", "z", "y", "x"], "datasets": [{"path": "0", "coordinateTransformations": scale}]}
    about["axes"] = [{"name": name, "unit": "micrometer"} for name in "czyx"]
    group.attrs.update({"ome": {"version": "0.5", "multiscales": [about]}} if form == 3 else {"multiscales": [about]})

    def add(stored, **more):
        params = {"name": "s.zarr", "stored": stored, **more}
        return api.post(f"/projects/{project['id']}/images", params=params)

    stack = add(f"plate 1/field-{form}.zarr").raise_for_status().json()
    assert (stack["planes"], stack["channels"], stack["spacing"]) == (3, 2, [2.0, 0.5, 0.5])
    for chunk in (path / "0").rglob("*"):
        places = chunk.relative_to(path / "0").parts[-4:]  # of c, z, y and x
        if chunk.is_file() and len(places) == 4 and places[1] == "0":
            chunk.write_bytes(b"broken")
    assert "broken chunk" in problem(add(f"plate 1/field-{form}.zarr", z=0), 422)["detail"]
    plane = add(f"plate 1/field-{form}.zarr", z=1).raise_for_status().json()
    assert (plane["planes"], plane["spacing"]) == (1, [0.5, 0.5])
    tile = api.get(f"/images/{plane['id']}/tiles/0/0/0", params={"channel": 1})
    assert np.array_equal(np.frombuffer(tile.content, np.uint8).reshape(40, 50), pixels[1, 1])
    assert "imports/none.zarr" in problem(add("none.zarr"), 404)["detail"]
    assert problem(add("../blobs"), 422)["errors"][0]["field"] == "stored"
    assert "component '..'" in problem(add("a/../../blobs"), 422)["detail"]


def test_an_archive_makes_an_equal_project(api, project, image):
    marks = Marks(api, image["id"])
    marks.add(0, 0, np.ones((3, 3)))
    marks.add(10, 10, np.full((5, 5), 0x80000000))
    bare = encode_tiff(np.arange(64, dtype=np.uint16).reshape(8, 8))
    api.post(f"/projects/{project['id']}/images", params={"name": "b.tif"}, content=bare).raise_for_status()
    named = {"name": "c.tif", "channels": ["DAPI", "GFP"]}
    two = encode_tiff(np.arange(128, dtype=np.uint16).reshape(8, 8, 2))
    made = api.post(f"/projects/{project['id']}/images", params=named, content=two).raise_for_status().json()
    assert made["channel_names"] == ["DAPI", "GFP"]
    archive = api.get(f"/projects/{project['id']}/archive")
    assert archive.headers["content-disposition"] == 'attachment; filename="Nuclei.zip"'
    members = zipfile.ZipFile(io.BytesIO(archive.content)).namelist()
    assert members == ["project.json", "images/1.tif", "annotations/1.tif", "images/2.tif", "images/3.tif"]
    copy = api.post("/projects/archive", content=archive.content).raise_for_status().json()
    assert (copy["name"], copy["images"], copy["cells"]) == ("Nuclei", 3, 1)
    first, second, third = api.get(f"/projects/{copy['id']}/images").json()["images"]
    assert third["channel_names"] == ["DAPI", "GFP"]
    assert (first["name"], second["name"], first["labelled_pixels"]) == ("a.tif", "b.tif", 34)
    before, after = (read_tiff(api.get(f"/images/{found}/labels").content) for found in (image["id"], first["id"]))
    assert np.array_equal(before, after)


def test_a_broken_archive_leaves_nothing(api, project, image):
    count = len(api.get("/projects", params={"page_size": 1000}).json()["projects"])
    assert "not a zip" in problem(api.post("/projects/archive", content=b"PK"), 422)["detail"]
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        entry = {"name": "x", "image": "images/1.tif"}
        description = {"kind": "cellsparse project", "version": 1, "name": "Half", "images": [entry]}
        file.writestr("project.json", json.dumps(description))
    found = problem(api.post("/projects/archive", content=archive.getvalue()), 422)
    assert found["detail"] == "The zip has no file images/1.tif."
    assert len(api.get("/projects", params={"page_size": 1000}).json()["projects"]) == count


def test_the_sample_is_an_image_of_nuclei(api):
    made = api.post("/projects/sample")
    if made.status_code == 404:
        assert "stardist, which is not installed" in problem(made, 404)["detail"]
        pytest.skip("stardist, whose package holds the image, is not installed")
    assert made.json()["images"] == 1
    (image,) = api.get(f"/projects/{made.json()['id']}/images").json()["images"]
    assert (image["height"], image["width"], image["cells"]) == (512, 512, 0)


def test_datasets(api, dataset):
    assert (dataset["train_items"], dataset["val_items"], dataset["test_items"]) == (3, 1, 1)
    (left_out,) = dataset["left_out"]
    assert left_out["file"] == "set/README.txt"
    assert "unsupported kind" in left_out["reason"]
    report = dataset["report"]
    assert report["cells"] == dataset["cells"] == sum(item["cells"] for item in report["items"])
    assert report["background_pixels"] + report["unlabelled_pixels"] < dataset["pixels"]
    told = {"left_out": [left_out], "report": report}
    assert {**api.get(f"/datasets/{dataset['id']}").json(), **told} == dataset
    assert dataset["id"] in [entry["id"] for entry in api.get("/datasets").json()["datasets"]]
    items = api.get(f"/datasets/{dataset['id']}/items").json()["items"]
    assert sorted(item["name"] for item in items) == [f"i{number}" for number in range(5)]
    label = api.get(f"/datasets/{dataset['id']}/items/i2/label")
    assert np.array_equal(read_tiff(label.content), blobs(64, seed=2)[1])
    assert api.get(f"/datasets/{dataset['id']}/items/i2/image").headers["content-type"] == "image/tiff"
    asked = {"mode": "SELECTION_MODE_RANDOM", "k": 1, "background": "BACKGROUND_RULE_ALL", "name": "few"}
    sparse = api.post(f"/datasets/{dataset['id']}/sparsify", json=asked).raise_for_status().json()
    assert (sparse["dataset"]["name"], sparse["dataset"]["parent_id"]) == ("few", dataset["id"])
    assert api.delete(f"/datasets/{sparse['dataset']['id']}").status_code == 204
    problem(api.post("/datasets", params={"name": "x"}, content=b"no zip"), 422)
    empty = io.BytesIO()
    zipfile.ZipFile(empty, "w").close()
    assert (
        "No image in the zip has a label file"
        in problem(api.post("/datasets", params={"name": "x"}, content=empty.getvalue()), 422)["detail"]
    )


def test_runs(api, dataset, model):
    run = api.get(f"/runs/{model['id']}").json()
    assert run["state"] == "RUN_STATE_SUCCEEDED"
    assert api.post(f"/runs/{model['id']}/cancel").json()["state"] == "RUN_STATE_SUCCEEDED"
    again = [{"dataset_id": "ds-missing", "settings": {"unet": {}}}]
    assert "ds-missing" in problem(api.post("/runs/batch", json={"runs": again}), 404)["detail"]
    chosen = {"states": "succeeded,RUN_STATE_FAILED", "backend": "unet", "dataset_id": dataset["id"]}
    assert [entry["id"] for entry in api.get("/runs", params=chosen).json()["runs"]] == [model["id"]]
    problem(api.get("/runs", params={"states": "sleeping"}), 422)
    problem(api.get("/runs/nothing/events"), 404)


def test_events_resume_after_the_last_one_received(api, model):
    path = f"/runs/{model['id']}/events"
    everything = list(read_events(api, path))
    numbers = [int(event.id) for event in everything[:-1]]
    assert numbers == list(range(1, len(numbers) + 1))
    rest = list(read_events(api, path, headers={"Last-Event-ID": "2"}))
    assert rest == everything[2:]
    assert list(read_events(api, path, params={"after": 2})) == rest
    assert [event.name for event in read_events(api, path, headers={"Last-Event-ID": str(numbers[-1])})] == ["end"]


def test_models_predict_score_and_leave_as_files(api, dataset, model):
    assert model["id"] in [entry["id"] for entry in api.get("/models").json()["models"]]
    pixels, _ = blobs(64, seed=9)
    found = api.post("/predictions", params={"model_id": model["id"]}, content=encode_tiff(pixels))
    assert int(found.headers["x-cells"]) == read_tiff(found.content).max()
    outlines = api.post(
        "/predictions", params={"model_id": model["id"], "format": "geojson"}, content=encode_tiff(pixels)
    )
    assert len(outlines.json()["features"]) == int(outlines.headers["x-cells"])
    asked = {"model_id": model["id"], "dataset_id": dataset["id"], "ious": [0.5]}
    report = api.post("/evaluations", json=asked).json()
    assert report["report"]["scores"][0]["iou"] == 0.5
    problem(api.get(f"/models/{model['id']}/export", params={"format": "saved_model"}), 422)
    problem(api.get("/models/nothing/export"), 404)
    problem(api.post("/predictions", params={"model_id": model["id"]}, content=b"no image"), 422)
    bad = api.post("/models", params={"backend": "unet", "name": "bad"}, content=b"no model")
    assert bad.status_code in (409, 422), bad.text


def test_a_study(api, dataset):
    grid = {"backends": ["unet"], "k": [1], "seeds": [0], "modes": ["SELECTION_MODE_RANDOM"]}
    grid |= {"backgrounds": ["BACKGROUND_RULE_ALL"], "settings": [{"name": "steps", "values": ["2"]}]}
    made = api.post("/studies", json={"dataset_id": dataset["id"], "grid": grid}).raise_for_status().json()
    path = f"/studies/{made['id']}"
    assert made["id"] in [entry["id"] for entry in api.get("/studies").json()["studies"]]
    assert api.post(f"{path}/pause").json()["state"] == "STUDY_STATE_PAUSED"
    assert api.post(f"{path}/resume").json()["state"] == "STUDY_STATE_RUNNING"
    events = list(read_events(api, f"{path}/events", timeout=LONG_PATIENCE))
    assert events[-1].name == "end"
    until(lambda: api.get(path).json()["state"] == "STUDY_STATE_SUCCEEDED")
    assert len(api.get(f"{path}/members").json()["members"]) == 1
    report = api.get(f"{path}/report").json()
    assert report["complete"]
    assert report["report"]
    assert api.get(f"{path}/report", params={"format": "csv"}).text.count("\n") >= 2
    assert api.delete(path).status_code == 204
    problem(api.post(f"{path}/cancel"), 404)


def test_the_status_names_services_and_versions(api):
    status = api.get("/status").json()
    assert [service["name"] for service in status["services"]] == ["orchestrator", "sparsifier", "unet"]
    assert status["version"] == "0.1.0"
    assert isinstance(status["prompters"], list)
