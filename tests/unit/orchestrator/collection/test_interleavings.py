"""Uploads, attempts, deletions and collections in any order: nothing that is needed goes, all else goes in the end."""

import hashlib
import itertools
import json
import shutil
import tempfile
from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import select, update

from cellsparse_common.datasets import put_blob, write_manifest
from cellsparse_common.errors import FailedPrecondition, NotFound
from cellsparse_common.storage import FolderStore, keys
from cellsparse_orchestrator.catalogue import deletion
from cellsparse_orchestrator.catalogue.datasets import Datasets
from cellsparse_orchestrator.catalogue.deletion import Deletions
from cellsparse_orchestrator.catalogue.models import Models, add_model
from cellsparse_orchestrator.catalogue.upload_table import UploadTable
from cellsparse_orchestrator.collection.collector import Collector, Rules
from cellsparse_orchestrator.collection.ledger import open_ledger
from cellsparse_orchestrator.db.session import Database
from cellsparse_orchestrator.db.tables import DatasetRow, ModelRow, RunRow
from cellsparse_orchestrator.notifier import Notifier
from cellsparse_orchestrator.runs.queries import Runs
from cellsparse_proto.v1 import dataset_pb2, orchestrator_pb2, trainer_pb2, upload_pb2

GRACE, CHECKPOINT_DAYS = timedelta(days=3), 2.0
CONTENTS = [b"one", b"two"]
TABLES = {
    "datasets": (DatasetRow, deletion.DATASET),
    "runs": (RunRow, deletion.RUN),
    "models": (ModelRow, deletion.MODEL),
}
SETTINGS = trainer_pb2.TrainingSettings(unet=trainer_pb2.UnetSettings())
WHICH = st.integers(0, 9)


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory):
    """A database that is migrated already: each example has a copy."""
    path = tmp_path_factory.mktemp("empty") / "a.db"
    Database(f"sqlite:///{path}").close()
    return path


class World(RuleBasedStateMachine):
    """A store, its tables, a clock of its own, and a collection that goes on step by step between all else."""

    empty: Path
    kinds: tuple[str, ...]
    """What is deleted and undeleted."""

    def __init__(self):
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        path = Path(self.folder.name)
        shutil.copy(self.empty, path / "a.db")
        self.database = Database(f"sqlite:///{path / 'a.db'}")
        self.store = FolderStore(path / "store")
        self.datasets, self.models = Datasets(self.database), Models(self.database)
        self.runs = Runs(self.database, Notifier())
        self.deletions = Deletions(self.database, GRACE)
        self.wait_for = timedelta(0)
        self.deleted = {}
        """What may be undeleted: until when."""
        self.now = datetime(2030, 1, 1, tzinfo=UTC)
        self.numbers = itertools.count()
        self.uploads = []
        """Under way: (what holds the collector off, id, blobs, whether the manifest is written)."""
        self.collection = None
        self.files, self.sent = UploadTable(self.database, timedelta(hours=1)), set()
        """Files that were sent by their hash, and of which something may still be made."""
        self.left = ExitStack()

    def teardown(self):
        for holds, *_ in self.uploads:
            holds.close()
        self.uploads = []
        for sha256 in self.sent:
            self.files.forget(sha256)
        self.sent = set()
        self.collect_on(1000)
        self.now += 2 * GRACE
        for _ in range(3):
            self.now += timedelta(days=2)
            self.begin_collection(False)
            self.collect_on(1000)
        self.nothing_needed_is_gone()
        self.nothing_else_is_left()
        self.left.close()
        self.database.close()
        self.folder.cleanup()

    @initialize(wait=st.sampled_from([0, 0, 1]))
    def own_the_store(self, wait):
        self.wait_for = timedelta(days=wait)
        self.begin_collection(False)
        self.collect_on(1000)

    @rule(which=WHICH)
    def delete(self, which):
        kind = self.kinds[which % len(self.kinds)]
        table, _ = TABLES[kind]
        ids = self.visible(table)
        if ids:
            chosen = ids[which % len(ids)]
            with suppress(FailedPrecondition):
                getattr(self, kind).remove(chosen)
                self.set(table, chosen, deleted_at=self.now)
                self.deleted[kind, chosen] = self.now + GRACE

    @precondition(lambda self: self.deleted)
    @rule(which=WHICH)
    def undelete(self, which):
        kind, thing_id = sorted(self.deleted)[which % len(self.deleted)]
        try:
            self.deletions.restore(TABLES[kind][1], thing_id)
        except NotFound:
            assert self.now > self.deleted[kind, thing_id]
        del self.deleted[kind, thing_id]

    @rule(days=st.sampled_from([0.5, 1.0, 4.0]))
    def wait(self, days):
        self.now += timedelta(days=days)

    @precondition(lambda self: self.collection is None)
    @rule(dry_run=st.booleans())
    def begin_collection(self, dry_run):
        folder = tempfile.mkdtemp(dir=self.folder.name)
        ledger = self.left.enter_context(open_ledger(Path(folder)))
        rules = Rules(
            now=self.now,
            grace=GRACE,
            wait=self.wait_for,
            checkpoint_days=CHECKPOINT_DAYS,
            dry_run=dry_run,
            busy_seconds=0.0,
        )
        self.collection = Collector(self.store, self.database, ledger, rules, clock=lambda: self.now).run()

    @precondition(lambda self: self.collection is not None)
    @rule(steps=st.integers(1, 4))
    def collect_on(self, steps):
        if self.collection is not None and len(list(itertools.islice(self.collection, steps))) < steps:
            self.collection = None

    @invariant()
    def nothing_needed_is_gone(self):
        for (kind, thing_id), until in self.deleted.items():
            assert self.now > until or thing_id in self.all(TABLES[kind][0])
        for _, dataset_id, blobs, written in self.uploads:
            assert not written or self.store.exists(keys.dataset_manifest(dataset_id))
            assert all(self.store.exists(keys.blob(each)) for each in blobs)
        assert all(self.store.exists(keys.blob(each)) for each in self.sent)
        for dataset_id in self.all(DatasetRow):
            assert all(self.store.exists(keys.blob(each)) for each in self.blobs_of(dataset_id))
        for model_id in self.all(ModelRow):
            assert self.store.exists(keys.model_file(model_id, "model.json"))
        for run_id in self.all(RunRow):
            assert self.store.exists(keys.run_spec(run_id))
            for step in self.pointed_to(run_id):
                assert self.store.exists(keys.checkpoint(run_id, step, "state"))

    def nothing_else_is_left(self):
        datasets, models, runs = self.all(DatasetRow), self.all(ModelRow), self.all(RunRow)
        blobs = {keys.blob(each) for dataset_id in datasets for each in self.blobs_of(dataset_id)}
        assert set(self.store.list(keys.BLOBS)) == blobs
        assert set(self.store.list(keys.DATASETS)) == {keys.dataset_manifest(each) for each in datasets}
        for key in self.store.list(keys.RUNS):
            _, run_id, part, *rest = key.split("/")
            assert run_id in (models if part == "model" and run_id not in self.running() else runs), key
            if part == "checkpoints" and len(rest) > 1 and run_id not in self.running():
                assert int(rest[0]) in self.pointed_to(run_id)

    def blobs_of(self, dataset_id):
        manifest = json.loads(self.store.get(keys.dataset_manifest(dataset_id)))
        return {item["image_sha256"] for item in manifest.get("items", ())}

    def pointed_to(self, run_id):
        found = [keys.checkpoint_pointer(run_id, name) for name in ("LATEST", "BEST")]
        return {json.loads(self.store.get(each))["step"] for each in found if self.store.exists(each)}

    def visible(self, table):
        return self.all(table, table.deleted_at.is_(None))

    def running(self):
        return self.all(RunRow, RunRow.state == "RUNNING")

    def all(self, table, *conditions):
        with self.database.read() as session:
            return list(session.scalars(select(table.id).where(*conditions).order_by(table.number)))

    def set(self, table, thing_id, **values):
        with self.database.write() as session:
            session.execute(update(table).where(table.id == thing_id).values(**values))


class Uploads(World):
    kinds = ("datasets",)

    @rule(contents=st.sets(st.sampled_from(CONTENTS), min_size=1))
    def begin_upload(self, contents):
        holds = ExitStack()
        holds.enter_context(self.database.publishing.hold())
        blobs = [put_blob(self.store, each) for each in sorted(contents)]
        self.uploads.append([holds, f"ds-{next(self.numbers)}", blobs, False])

    @precondition(lambda self: self.uploads)
    @rule(which=WHICH)
    def go_on_with_upload(self, which):
        """Write the manifest; the next time commit."""
        upload = self.uploads[which % len(self.uploads)]
        holds, dataset_id, blobs, written = upload
        dataset = dataset_pb2.Dataset(id=dataset_id, name=dataset_id)
        if not written:
            items = [
                dataset_pb2.DatasetItem(name=each, image_sha256=each, label_sha256=each, axes="YX", shape=[2, 2])
                for each in blobs
            ]
            write_manifest(self.store, dataset_pb2.DatasetManifest(dataset=dataset, items=items))
            upload[3] = True
            return
        self.datasets.add(dataset)
        holds.close()
        self.uploads.remove(upload)

    @precondition(lambda self: self.uploads)
    @rule(which=WHICH)
    def break_upload_off(self, which):
        upload = self.uploads.pop(which % len(self.uploads))
        upload[0].close()

    @rule(content=st.sampled_from(CONTENTS))
    def send_file(self, content):
        """As a client that sends files by their hash, of which it makes a dataset later, or never."""
        sha256 = hashlib.sha256(content).hexdigest()
        self.files.begin([upload_pb2.UploadFile(sha256=sha256, size=len(content))])
        self.sent.add(put_blob(self.store, content))

    @precondition(lambda self: self.sent)
    @rule(which=WHICH)
    def forget_file(self, which):
        sha256 = sorted(self.sent)[which % len(self.sent)]
        self.sent.remove(sha256)
        self.files.forget(sha256)

    @rule(content=st.sampled_from(CONTENTS))
    def upload_at_once(self, content):
        self.begin_upload({content})
        self.go_on_with_upload(-1)
        self.go_on_with_upload(-1)


class Attempts(World):
    kinds = ("runs", "models")

    @initialize()
    def upload(self):
        self.datasets.add(dataset_pb2.Dataset(id="ds-0", name="ds-0"))
        write_manifest(self.store, dataset_pb2.DatasetManifest(dataset=dataset_pb2.Dataset(id="ds-0")))

    @rule(between=st.booleans())
    def queue_and_begin_run(self, between):
        run_id = f"run-{next(self.numbers)}"
        request = orchestrator_pb2.CreateRunRequest(dataset_id="ds-0", settings=SETTINGS)
        with self.database.publishing.hold():
            self.store.put(keys.run_spec(run_id), b"{}")
            if between:
                self.collect_on(3)
            self.runs.add(run_id, run_id, request)
        self.set(RunRow, run_id, state="RUNNING")

    @rule(which=WHICH, best=st.booleans())
    def write_checkpoint(self, which, best):
        running = self.running()
        if running:
            run_id, step = running[which % len(running)], next(self.numbers)
            self.store.put(keys.checkpoint(run_id, step, "state"), b"weights")
            for name in ("LATEST", *(["BEST"] if best else [])):
                self.store.put(keys.checkpoint_pointer(run_id, name), json.dumps({"step": step}).encode())

    @rule(which=WHICH, good=st.booleans())
    def end_run(self, which, good):
        running = self.running()
        if running:
            run_id = running[which % len(running)]
            self.store.put(keys.model_file(run_id, "model.json"), b"{}")
            self.collect_on(1)
            with self.database.write() as session:
                row = session.scalars(select(RunRow).where(RunRow.id == run_id)).one()
                row.state, row.ended_at = ("SUCCEEDED" if good else "FAILED"), self.now
                if good:
                    add_model(session, row, None)


@pytest.mark.parametrize("world", [Uploads, Attempts])
def test_any_order_of_events_loses_nothing_and_leaves_nothing(world, empty_database):
    World.empty = empty_database
    run_state_machine_as_test(world, settings=settings(max_examples=15, stateful_step_count=25))


@pytest.fixture
def uploads(empty_database):
    """Uploads with left-over blobs, as of one that broke off, that a collection may remove at once."""
    World.empty = empty_database
    world = Uploads()
    world.own_the_store(0)
    world.begin_upload(CONTENTS)
    world.break_upload_off(0)
    yield world
    world.teardown()


def test_a_blob_that_is_referred_to_while_it_is_collected_stays(uploads):
    for step in range(3, 14):  # of the collection, after which an upload relies on the blob if it is still there
        uploads.begin_upload(CONTENTS)
        uploads.break_upload_off(0)
        uploads.begin_collection(False)
        uploads.collect_on(step)
        uploads.upload_at_once(CONTENTS[0])
        uploads.collect_on(1000)
        uploads.nothing_needed_is_gone()
        uploads.delete(0)
        uploads.wait(4.0)


def test_nothing_is_collected_while_something_is_being_published(uploads):
    uploads.begin_upload({CONTENTS[0]})
    uploads.begin_collection(False)
    *_, last = uploads.collection
    uploads.collection = None
    assert last.summary.objects == 0
    assert "being published" in last.summary.left_out[0]
    uploads.nothing_needed_is_gone()
    uploads.go_on_with_upload(0)
    uploads.go_on_with_upload(0)
    uploads.nothing_needed_is_gone()


def test_no_blob_is_collected_while_a_manifest_cannot_be_read(uploads):
    uploads.upload_at_once(CONTENTS[0])
    (dataset_id,) = uploads.all(DatasetRow)
    manifest = uploads.store.get(keys.dataset_manifest(dataset_id))
    for data in (b"{", None):
        uploads.store.put(keys.dataset_manifest(dataset_id), data) if data else uploads.store.delete(
            keys.dataset_manifest(dataset_id)
        )
        uploads.begin_collection(False)
        *_, last = uploads.collection
        uploads.collection = None
        assert last.summary.objects == 0
        assert dataset_id in last.summary.left_out[0]
    uploads.store.put(keys.dataset_manifest(dataset_id), manifest)
