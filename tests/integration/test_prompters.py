"""Weights of prompters that users bring: what the orchestrator keeps, and what it does not."""

import threading

import grpc
import pytest
from support.limits import PATIENCE
from support.orchestrator import Orchestrator, refused, snapshot
from support.tiny_sam import decoder, encoder, prompter_messages, sha256

from cellsparse_common.errors import AlreadyExists, CellsparseError, NotFound, StorageError
from cellsparse_common.storage import FolderStore
from cellsparse_orchestrator.catalogue.prompter_uploads import receive_prompter
from cellsparse_orchestrator.catalogue.prompters import Prompters
from cellsparse_orchestrator.db.session import Database
from cellsparse_proto.v1 import common_pb2, prompter_pb2

PAIR = (encoder(prepares=True), decoder())


@pytest.fixture(scope="module")
def orchestrator(tmp_path_factory):
    settings = {"CELLSPARSE_LAUNCHER": "static", "CELLSPARSE_MAX_PROMPTER_MIB": "8"}
    with Orchestrator(tmp_path_factory.mktemp("home"), **settings) as running:
        yield running


def added(orchestrator, name, pair=PAIR):
    return orchestrator.prompters.AddPrompter(prompter_messages(name, pair), timeout=PATIENCE).prompter


def listed(orchestrator):
    request = prompter_pb2.ListPromptersRequest()
    return [each.name for each in orchestrator.prompters.ListPrompters(request, timeout=PATIENCE).prompters]


def delete(orchestrator, name):
    orchestrator.prompters.DeletePrompter(prompter_pb2.DeletePrompterRequest(name=name), timeout=PATIENCE)


def test_the_files_come_back_as_they_went_in(orchestrator):
    made = added(orchestrator, "tiny")
    assert (made.name, made.licence) == ("tiny", "MIT")
    for part, data in enumerate(PAIR, start=1):
        request = prompter_pb2.GetPrompterFileRequest(name="tiny", part=part)
        first, *rest = orchestrator.prompters.GetPrompterFile(request, timeout=PATIENCE)
        assert (first.header.sha256, first.header.size) == (sha256(data), len(data))
        assert b"".join(answer.chunk for answer in rest) == data
    added(orchestrator, "second")
    assert listed(orchestrator) == ["second", "tiny"]
    assert "already" in refused(orchestrator.prompters.AddPrompter, prompter_messages("tiny", PAIR)).message
    for name in ("tiny", "second"):
        delete(orchestrator, name)
    assert listed(orchestrator) == []
    assert not [path for path in (orchestrator.store / "prompters").rglob("*") if path.is_file()]
    error = refused(orchestrator.prompters.DeletePrompter, prompter_pb2.DeletePrompterRequest(name="tiny"))
    assert (error.status, "'tiny'" in error.message) == (grpc.StatusCode.NOT_FOUND, True)


@pytest.mark.parametrize(
    ("name", "pair", "changed", "said"),
    [
        ("onnx-sam", PAIR, {}, "taken by a built-in prompter"),
        ("Big Sam", PAIR, {}, "Big Sam"),
        ("sam", PAIR, {"licence": ""}, "licence"),
        ("sam", PAIR, {"encoder_sha256": "0" * 64}, "another file, or broken"),
        ("sam", (b"PK\x03\x04 torch", PAIR[1]), {}, "export it to ONNX with samexporter"),
        ("sam", (PAIR[0], b"\x80\x02}q\x00."), {}, "export it to ONNX with samexporter"),
        ("sam", (PAIR[0], b"junk"), {}, "The decoder is no ONNX file"),
        ("sam", (PAIR[0][:-9], PAIR[1]), {}, "The encoder is no ONNX file"),
        ("sam", (bytes(2**23 + 1), PAIR[1]), {}, "larger than 8 MiB"),
        ("sam", (b"", PAIR[1]), {}, "encoder_size"),
    ],
)
def test_what_is_refused_leaves_nothing(orchestrator, name, pair, changed, said):
    before = snapshot(orchestrator)
    assert said in refused(orchestrator.prompters.AddPrompter, prompter_messages(name, pair, **changed)).message
    assert snapshot(orchestrator) == before


def test_a_stream_that_is_not_an_upload(orchestrator):
    header, *rest = prompter_messages("sam", PAIR)
    end, decoding, encoding = rest[-1], rest[-2], rest[0]
    before = snapshot(orchestrator)
    for parts, said in (
        (rest, "must be its header"),
        ([header, header], "second header"),
        ([header, *rest[:-1]], "without its end"),
        ([header, *rest, encoding], "after its end"),
        ([header, decoding, encoding], "comes after the decoder"),
        ([header, encoding, end], "bytes of the"),
    ):
        assert said in refused(orchestrator.prompters.AddPrompter, iter(parts)).message
    assert snapshot(orchestrator) == before


class Failing(FolderStore):
    """A store that cannot keep decoders."""

    def put(self, key, data):
        if "decoder" in key:
            raise StorageError("disk full")
        super().put(key, data)


def test_rows_and_files_agree_on_every_database(database_url, tmp_path):
    database, store = Database(database_url), FolderStore(tmp_path / "store")
    prompters = Prompters(database, store)

    def upload(name):
        (folder := tmp_path / f"{name}-{threading.get_ident()}").mkdir(exist_ok=True)
        for file in folder.iterdir():
            file.unlink()
        return receive_prompter(prompter_messages(name, PAIR), folder, 2**24)

    try:
        with pytest.raises(StorageError):
            Prompters(database, Failing(tmp_path / "store")).add(upload("a"))
        assert list(store.list("")) == []
        store.put("prompters/prompter-other/encoder.onnx", b"of a killed upload, or another installation's")
        for name in "abc":
            prompters.add(upload(name))
        assert len(list(store.list("prompters/"))) == 7
        page = common_pb2.PageRequest(page_size=2)
        first, token = prompters.page(page)
        rest, end = prompters.page(common_pb2.PageRequest(page_size=2, page_token=token))
        assert ([each.name for each in first + rest], end) == (["c", "b", "a"], "")
        with pytest.raises(AlreadyExists):
            prompters.add(upload("a"))
        key, file = prompters.file("b", "decoder")
        assert (store.get(key), file.sha256) == (PAIR[1], sha256(PAIR[1]))
        prompters.remove("b")
        with pytest.raises(NotFound):
            prompters.file("b", "decoder")
        assert len(list(store.list("prompters/"))) == 5
        # Of several at the same time one wins, and only its files stay.
        failures = []

        def add():
            try:
                prompters.add(upload("same"))
            except CellsparseError as error:
                failures.append(type(error))

        threads = [threading.Thread(target=add) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        assert failures == [AlreadyExists] * 3
        assert len(list(store.list("prompters/"))) == 7
    finally:
        database.close()
