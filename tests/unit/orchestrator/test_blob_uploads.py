"""Files by their hash: whose they are, what they take of a quota, how long they stay, and two calls for one file."""

import hashlib
from datetime import timedelta

import pytest

from cellsparse_common.errors import Aborted, FailedPrecondition, ResourceExhausted
from cellsparse_common.storage import FolderStore, keys
from cellsparse_orchestrator.caller import Caller, acting
from cellsparse_orchestrator.catalogue.blob_uploads import BlobUploads, UploadRules
from cellsparse_orchestrator.catalogue.datasets import Datasets
from cellsparse_orchestrator.catalogue.limits import set_limits
from cellsparse_orchestrator.catalogue.partial_files import PartialFiles
from cellsparse_orchestrator.catalogue.upload_table import UploadTable
from cellsparse_orchestrator.db.session import Database
from cellsparse_proto.v1 import dataset_pb2, project_pb2, rules_pb2, upload_pb2

CONTENT = b"0123456789" * 10
OTHER = b"abcdefghij" * 10


@pytest.fixture
def database(tmp_path):
    made = Database(f"sqlite:///{tmp_path / 'a.db'}")
    yield made
    made.close()


@pytest.fixture
def make(tmp_path, database):
    """Makes what an orchestrator has after a start."""

    def uploads(keep=timedelta(hours=1)):
        rules = UploadRules(max_bytes=1000, url_bytes=1, part_bytes=1000)
        partials = PartialFiles(tmp_path / "incoming")
        return BlobUploads(FolderStore(tmp_path / "store"), UploadTable(database, keep), partials, rules)

    return uploads


def of(project_id):
    return acting(Caller(token_id="t", name="t", role=rules_pb2.ROLE_ANNOTATOR, project_id=project_id))


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def start(uploads, *contents):
    return uploads.start([upload_pb2.UploadFile(sha256=sha256(each), size=len(each)) for each in contents])


def send(uploads, *contents, offset=0):
    def requests():
        for content in contents:
            begin = upload_pb2.UploadBegin(sha256=sha256(content), offset=offset)
            yield upload_pb2.SendUploadsRequest(file=begin)
            for at in range(offset, len(content), 7):
                yield upload_pb2.SendUploadsRequest(chunk=content[at : at + 7])

    return uploads.receive(requests())


def test_no_project_learns_what_another_one_has(make, tmp_path):
    uploads = make()
    with of("one"):
        start(uploads, CONTENT)
        assert send(uploads, CONTENT) == 1
        assert uploads.has([sha256(CONTENT)]) == [sha256(CONTENT)]
    assert FolderStore(tmp_path / "store").get(keys.blob(sha256(CONTENT))) == CONTENT
    with of("two"):
        assert uploads.has([sha256(CONTENT)]) == []
        (state,) = start(uploads, CONTENT)
        assert (state.offset, state.complete) == (0, False)
        with pytest.raises(FailedPrecondition, match=r"The image \(SHA-256 .* is missing or damaged here"):
            uploads.table.require([(sha256(CONTENT), "image")])
        assert send(uploads, CONTENT) == 1
        assert uploads.has([sha256(CONTENT)]) == [sha256(CONTENT)]


def test_what_is_on_its_way_counts_until_something_is_made_of_it(make, database):
    uploads = make()
    with database.write() as session:
        set_limits(session, "one", project_pb2.ProjectLimits(bytes=250))
    with of("one"):
        start(uploads, CONTENT, OTHER)
        start(uploads, CONTENT, OTHER)  # the same ones
        with pytest.raises(ResourceExhausted, match="The quota of project one"):
            start(uploads, b"more" * 20)
        send(uploads, CONTENT, OTHER)
        dataset = dataset_pb2.Dataset(id="ds-1", name="a")
        Datasets(database).add(dataset, size=150, uploads=[sha256(CONTENT), sha256(OTHER)])
        start(uploads, b"more" * 20)
        assert uploads.has([sha256(CONTENT)])
    with pytest.raises(ResourceExhausted, match=r"allowed: 0\.000"):
        start(uploads, b"x" * 1001)


def test_the_second_call_for_a_file_takes_over(make):
    uploads = make()
    start(uploads, CONTENT)

    def first():
        yield upload_pb2.SendUploadsRequest(file=upload_pb2.UploadBegin(sha256=sha256(CONTENT)))
        yield upload_pb2.SendUploadsRequest(chunk=CONTENT[:30])
        assert send(uploads, CONTENT, offset=30) == 1
        yield upload_pb2.SendUploadsRequest(chunk=CONTENT[30:])

    with pytest.raises(Aborted, match="Another call sends the same file"):
        uploads.receive(first())
    assert uploads.has([sha256(CONTENT)])


def test_old_uploads_are_swept_and_others_stay(make, tmp_path, database):
    uploads = make()
    start(uploads, CONTENT, OTHER)
    send(uploads, OTHER)
    with pytest.raises(RuntimeError):
        uploads.receive(half(CONTENT))
    uploads.sweep()
    uploads = make()  # after a restart
    assert [each.offset for each in start(uploads, CONTENT, OTHER)] == [50, 100]
    make(timedelta(seconds=-1)).sweep()
    assert not [path for path in (tmp_path / "incoming").rglob("*") if path.is_file()]
    assert uploads.has([sha256(OTHER)]) == []
    assert [each.offset for each in start(uploads, CONTENT, OTHER)] == [0, 0]


def half(content):
    yield upload_pb2.SendUploadsRequest(file=upload_pb2.UploadBegin(sha256=sha256(content)))
    yield upload_pb2.SendUploadsRequest(chunk=content[: len(content) // 2])
    raise RuntimeError("cut")
