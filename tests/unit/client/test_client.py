import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from support.limits import PATIENCE, QUICK

import cellsparse
from cellsparse import errors, runs
from cellsparse_proto.v1 import common_pb2, dataset_pb2, trainer_pb2

IMAGE = np.arange(20, dtype=np.uint8).reshape(4, 5)
LABEL = np.eye(4, 5, dtype=np.int64)


def test_upload_streams_small_chunks_item_by_item(fake, tmp_path):
    big = tmp_path / "big.tif"
    big.write_bytes(bytes(range(256)) * 10_000)
    with cellsparse.Client() as client:
        made = client.create_dataset("nuclei", [("a", "train", big, LABEL), ("b", "test", IMAGE, b"label")])
    assert (made.name, made.items) == ("nuclei", 2)
    messages, ended = fake.state.uploads[0]
    assert ended
    assert [m.WhichOneof("part") for m in messages] == ["header", "file", *["chunk"] * 3, *["file", "chunk"] * 3, "end"]
    assert messages[-1].end.items == 2
    assert max(len(m.chunk) for m in messages) == 2**20
    assert b"".join(m.chunk for m in messages[2:5]) == big.read_bytes()
    files = [(m.file.item, m.file.split, m.file.role) for m in messages if m.HasField("file")]
    assert files[1] == ("a", common_pb2.SPLIT_TRAIN, dataset_pb2.FILE_ROLE_LABEL)
    assert files[2] == ("b", common_pb2.SPLIT_TEST, dataset_pb2.FILE_ROLE_IMAGE)


@pytest.mark.parametrize("fault", ["missing file", "bad split", "user's own error"])
def test_an_upload_that_breaks_is_never_ended_as_if_it_were_whole(fake, tmp_path, fault, caplog):
    def items():
        yield "a", "train", IMAGE, LABEL
        if fault == "missing file":
            yield "b", "train", tmp_path / "missing.tif", LABEL
        if fault == "bad split":
            yield "b", "training", IMAGE, LABEL
        raise KeyError("mine")

    expected = KeyError if fault == "user's own error" else errors.InvalidArgument
    with cellsparse.Client() as client, pytest.raises(expected):
        client.create_dataset("nuclei", items())
    time.sleep(0.2)
    assert not any(ended for _, ended in fake.state.uploads)
    assert not [record for record in caplog.records if record.name.startswith("grpc")]


def test_labels_beyond_32_bits_are_refused(fake):
    with cellsparse.Client() as client, pytest.raises(errors.InvalidArgument, match="32 bits"):
        client.create_dataset("n", [("a", "train", IMAGE, LABEL * 2**40)])


def test_lists_go_through_all_pages(fake):
    fake.state.datasets = [dataset_pb2.Dataset(id=f"ds-{n}", name="n") for n in range(5)]
    with cellsparse.Client() as client:
        assert [entry.id for entry in client.datasets()] == [f"ds-{n}" for n in range(5)]


def test_items_come_as_arrays(fake):
    with cellsparse.Client() as client:
        item = client.dataset_item("ds-1", "a")
    assert (item.name, item.split, item.image.dtype, item.label.dtype) == ("a", "val", np.uint16, np.int32)
    assert item.label[1, 1] == 7
    assert (item.label == -1).sum() == 19


def test_sparsify_reports_progress(fake):
    fake.state.datasets = [dataset_pb2.Dataset(id="ds-1")]
    seen = []
    with cellsparse.Client() as client:
        made = client.sparsify("ds-1", k=4, splits=["train"], on_progress=lambda answer: seen.append(answer.items_done))
    assert made.sparsify.k == 4
    assert seen == [1, 2, 2]


def test_predict_takes_arrays_and_paths(fake, tmp_path):
    from cellsparse_common.imaging.images import encode_tiff

    path = tmp_path / "a.tif"
    path.write_bytes(encode_tiff(IMAGE))
    with cellsparse.Client() as client:
        for image in (IMAGE, path, str(path), path.read_bytes()):
            label = client.predict("m-1", image)
            assert (label.shape, label.dtype, label[0, 0]) == ((4, 5), np.int32, 3)
        with pytest.raises(errors.InvalidArgument, match="cannot be read"):
            client.predict("m-1", tmp_path / "no.tif")


def test_the_clients_limit_on_pixels_is_that_of_its_server(fake):
    fake.state.max_pixels = 2**28
    with cellsparse.Client() as client:
        assert client.connection.max_pixels() == 2**28
        fake.state.max_pixels = 19
        assert client.predict("m-1", IMAGE).shape == (4, 5)  # asked once
    with cellsparse.Client() as client:
        with pytest.raises(errors.ResourceExhausted, match="at most 19"):
            client.predict("m-1", IMAGE)
        with pytest.raises(errors.ResourceExhausted, match="at most 19"):
            client.dataset_item("ds-1", "a")


def test_labels_larger_than_the_usual_limit_are_decoded_if_the_server_made_them(fake):
    fake.state.max_pixels, fake.state.predicted_shape = 2**27, (2**13, 2**13 + 1)
    with cellsparse.Client() as client:
        assert client.predict("m-1", IMAGE).shape == (2**13, 2**13 + 1)


def test_predict_options_reach_the_server(fake):
    with cellsparse.Client() as client:
        assert client.predict("m-1", IMAGE, channel=0, min_pixels=9, format="geojson") == b"{}"
        assert client.predict("m-1", IMAGE, format="roi") == b"PK"
        client.predict("m-1", IMAGE)
        full, roi, plain = fake.state.predicted
        assert (full.HasField("channel"), full.channel, full.min_pixels) == (True, 0, 9)
        assert not roi.HasField("channel")
        assert plain.format == trainer_pb2.OUTPUT_FORMAT_LABEL_TIFF
        for options, said in (
            ({"format": "svg"}, "'svg'; allowed: tiff, geojson, roi"),
            ({"channel": 16}, "channel is 16; allowed: 0 to 15"),
            ({"channel": -1}, "channel is -1"),
            ({"min_pixels": -1}, "min_pixels is -1"),
            ({"min_pixels": 2**70}, "allowed: 0 to 67,108,864"),
        ):
            with pytest.raises(errors.InvalidArgument, match=said):
                client.predict("m-1", IMAGE, **options)
            with pytest.raises(errors.InvalidArgument, match=said):
                client.predict_many("m-1", [], **options)


def test_predict_many_keeps_what_is_good(fake, tmp_path):
    images = iter([IMAGE, b"no image", tmp_path / "no.tif", IMAGE])
    with cellsparse.Client() as client:
        predictions = client.predict_many("m-1", images, min_pixels=2)
        first = next(predictions)
        assert first.image is IMAGE
        assert (first.cells, first.output[0, 0], first.error) == (1, 3, None)
        assert len(fake.state.predicted) == 1  # one at a time
        bad, missing, last = predictions
    assert bad.output is None
    assert "neither TIFF nor PNG" in bad.error.message
    assert "no.tif cannot be read" in missing.error.message
    assert last.error is None


def test_several_images_are_with_the_server_at_once_and_come_in_order(fake):
    images = [np.full((4, 5 + number), number, np.uint8) for number in range(12)]
    with cellsparse.Client() as client:
        found = list(client.predict_many("m-1", images, parallel=3))
        assert [each.image.shape for each in found] == [image.shape for image in images]
        assert all(each.error is None for each in found)
        assert len(fake.state.predicted) == 12
        stopped = client.predict_many("m-1", iter(images), parallel=2)
        next(stopped)
        stopped.close()
        assert len(fake.state.predicted) <= 12 + 3
        with pytest.raises(errors.InvalidArgument, match="parallel is 0; allowed: 1 to 64"):
            client.predict_many("m-1", [], parallel=0)


def test_exports_are_written_whole_or_not_at_all(fake, tmp_path):
    target = tmp_path / "new" / "model.zip"
    with cellsparse.Client() as client:
        assert client.export("m-1", "native", target).file_name == "m.zip"
        assert target.read_bytes() == b"whole file"
        target.write_bytes(b"mine")
        with pytest.raises(errors.AlreadyExists, match="is there already"):
            client.export("m-1", "native", target)
        with pytest.raises(errors.InvalidArgument, match="is a folder"):
            client.export("m-1", "native", tmp_path, force=True)
        with pytest.raises(errors.InvalidArgument, match="native, saved_model, torchscript, onnx, bioimageio"):
            client.export("m-1", "keras", tmp_path / "other")
        fake.state.damaged = True
        with pytest.raises(errors.Internal, match="export it again"):
            client.export("m-1", "onnx", target, force=True)
        assert target.read_bytes() == b"mine"
        fake.state.damaged = False
        client.export("m-1", "onnx", target, force=True)
    assert target.read_bytes() == b"whole file"
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["model.zip"]


def test_errors_are_one_sentence_of_the_server(fake):
    with cellsparse.Client() as client:
        with pytest.raises(errors.NotFound, match="'ds-9' does not exist"):
            client.dataset("ds-9")
        with pytest.raises(errors.InvalidArgument) as caught:
            client.dataset("../../x")
    assert caught.value.violations[0][0] == "dataset_id"


def test_no_orchestrator(monkeypatch, tmp_path):
    monkeypatch.setenv("CELLSPARSE_HOME", str(tmp_path))
    monkeypatch.delenv("CELLSPARSE_ADDRESS", raising=False)
    with pytest.raises(errors.Unavailable, match="cellsparse up"):
        cellsparse.Client()
    with cellsparse.Client("127.0.0.1:1") as client, pytest.raises(errors.Unavailable, match=r"127\.0\.0\.1:1"):
        client.status()


def test_the_address_comes_from_the_home_folder(fake, monkeypatch, tmp_path):
    monkeypatch.delenv("CELLSPARSE_ADDRESS")
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "orchestrator.json").write_text(f'{{"address": "{fake.address}", "pid": 1}}')
    with cellsparse.Client() as client:
        assert client.status().services[0].name == "orchestrator"


def test_watch_resumes_after_the_last_event(fake, make):
    fake.state.runs = [make.run("run-1", state=common_pb2.RUN_STATE_SUCCEEDED)]
    fake.state.events = [make.event(n) for n in range(1, 6)]
    fake.state.break_after = 3
    lost = []
    with cellsparse.Client() as client:
        seen = [event.sequence for event in client.watch("run-1", 1, on_lost=lambda error, left: lost.append(left))]
    assert seen == [2, 3, 4, 5]
    assert fake.state.watches == [1, 3]
    assert len(lost) == 1


def test_watch_goes_on_when_a_stream_ends_before_its_run(fake, make):
    fake.state.runs = [make.run("run-1")]
    fake.state.events = [make.event(1)]

    def finish():
        time.sleep(0.3)
        fake.state.events.append(make.event(2))
        fake.state.runs[0].state = common_pb2.RUN_STATE_SUCCEEDED

    threading.Thread(target=finish).start()
    with cellsparse.Client() as client:
        assert [event.sequence for event in client.watch("run-1")] == [1, 2]


def test_watch_gives_up_after_its_patience(fake, make):
    fake.state.runs = [make.run("run-1")]
    fake.state.events = [make.event(1)]
    fake.state.endless = True
    with cellsparse.Client() as client:
        events = runs.watch(client.connection, "run-1", patience=1.5)
        next(events)
        fake.stop()
        begun = time.monotonic()
        with pytest.raises(errors.Unavailable):
            next(events)
    assert time.monotonic() - begun < QUICK


def test_watch_finds_an_orchestrator_that_restarts_elsewhere(fake, make, monkeypatch, tmp_path):
    monkeypatch.delenv("CELLSPARSE_ADDRESS")
    record = tmp_path / "home" / "orchestrator.json"
    record.parent.mkdir()
    record.write_text(f'{{"address": "{fake.address}", "pid": 1}}')
    fake.state.runs = [make.run("run-1")]
    fake.state.events = [make.event(1)]
    fake.state.endless = True
    told = []
    with cellsparse.Client() as client:
        events = client.watch("run-1", on_lost=lambda *_: told.append("lost"), on_back=lambda: told.append("back"))
        assert next(events).sequence == 1
        fake.stop()
        record.unlink()

        def restart():
            time.sleep(1)
            fake.start()
            fake.state.events.append(make.event(2))
            record.write_text(f'{{"address": "{fake.address}", "pid": 2}}')

        threading.Thread(target=restart).start()
        assert next(events).sequence == 2
        events.close()
    assert told[0] == "lost"
    assert told[-1] == "back"


def test_watching_an_unknown_run_is_not_repeated(fake):
    with cellsparse.Client() as client, pytest.raises(errors.NotFound):
        list(client.watch("run-9"))


def test_wait_raises_if_the_run_failed(fake, make):
    fake.state.runs = [make.run("run-1", state=common_pb2.RUN_STATE_FAILED, message="no cell")]
    with cellsparse.Client() as client:
        run = client.train("ds-1", "unet", steps=5, name="x", max_attempts=2)
        with pytest.raises(errors.RunFailedError, match="no cell"):
            run.wait()
    request = fake.state.created[0]
    assert (request.settings.steps, request.name, request.max_attempts) == (5, "x", 2)


def test_many_runs_are_asked_for_in_one_call(fake, make):
    fake.state.runs = [make.run("run-1"), make.run("run-2")]
    asked = [{"backend": "unet", "name": "slow", "steps": 7}, {"mean_diameter": 12.0}]
    with cellsparse.Client() as client:
        made = client.train_all("ds-1", asked, request_id="once", max_attempts=2, priority=1)
        with pytest.raises(errors.InvalidArgument, match="runs has 101 entries; allowed: at most 100"):
            client.train_all("ds-1", [{}] * 101)
    assert [run.id for run in made] == ["run-1", "run-2"]
    (request,) = fake.state.created
    assert request.request_id == "once"
    assert [(run.name, run.settings.WhichOneof("backend")) for run in request.runs] == [
        ("slow", "unet"),
        ("", "cellpose"),
    ]
    assert request.runs[0].settings.steps == 7
    assert {(run.dataset_id, run.max_attempts, run.priority) for run in request.runs} == {("ds-1", 2, 1)}


def test_evaluate(fake):
    with cellsparse.Client() as client:
        report = client.evaluate("m-1", "ds-1", "val", ious=[0.5], channels=["GFP", 0])
    assert report.scores[0].tp == 3
    assert list(fake.state.evaluated.channels) == ["GFP", "0"]


def test_the_client_loads_no_framework():
    code = (
        "import sys, cellsparse, cellsparse.cli.app, cellsparse.demo.pipeline;"
        "print([name for name in ('torch', 'tensorflow', 'stardist', 'cellpose', 'matplotlib') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert done.stdout.strip() == "[]"
