"""What is backed up comes back as it was; a backup that is torn or rotten is refused."""

import hashlib
import json
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select, update

from cellsparse_common.datasets import put_blob, write_manifest
from cellsparse_common.errors import Damaged, FailedPrecondition
from cellsparse_common.storage import FolderStore, keys
from cellsparse_orchestrator.backup import snapshots
from cellsparse_orchestrator.backup.backup import Backup
from cellsparse_orchestrator.backup.hold import backing_up, pruning
from cellsparse_orchestrator.backup.listing import open_listing
from cellsparse_orchestrator.backup.prune import Keep, choose, prune
from cellsparse_orchestrator.backup.restore import restore
from cellsparse_orchestrator.catalogue.datasets import Datasets
from cellsparse_orchestrator.clock import now, timestamp
from cellsparse_orchestrator.collection.hold import BACKUP, PRUNE, hold, refuse_while_held, release
from cellsparse_orchestrator.db.session import Database
from cellsparse_orchestrator.db.tables import ChangeRow, DatasetRow, LeaseRow, RunRow
from cellsparse_orchestrator.notifier import Notifier
from cellsparse_orchestrator.runs.queries import Runs
from cellsparse_proto.v1 import common_pb2, dataset_pb2, orchestrator_pb2, trainer_pb2


class Place:
    """A store with a dataset and a run that trains, its database, and a backup of both."""

    def __init__(self, folder, database_url=""):
        self.folder = folder
        self.number = 0
        self.store, self.backup = FolderStore(folder / "store"), FolderStore(folder / "backup")
        self.database = Database(database_url or f"sqlite:///{folder / 'a.db'}")
        sha256 = put_blob(self.store, b"pixels")
        dataset = dataset_pb2.Dataset(id="ds-1", name="tiny", created_at=timestamp(now()))
        item = dataset_pb2.DatasetItem(name="i", image_sha256=sha256, label_sha256=sha256, axes="YX", shape=[2, 2])
        write_manifest(self.store, dataset_pb2.DatasetManifest(dataset=dataset, items=[item]))
        Datasets(self.database).add(dataset)
        settings = trainer_pb2.TrainingSettings(unet=trainer_pb2.UnetSettings())
        request = orchestrator_pb2.CreateRunRequest(dataset_id="ds-1", settings=settings)
        Runs(self.database, Notifier()).add("run-1", "a run", request)
        values = {"name": "\N{GREEK SMALL LETTER MU}", "project_id": "", "method": "M", "subject": "", "source": ""}
        with self.database.write() as session:
            session.add(ChangeRow(time=now(), token_id="", result="OK", **values))
            session.execute(update(RunRow).values(state="RUNNING", progress=b"\0\xff"))

    def checkpoint(self, step):
        self.store.put(keys.checkpoint("run-1", step, "state"), b"weights of %d" % step)
        sha256 = put_blob(FolderStore(self.folder / "hashes"), b"weights of %d" % step)
        pointer = json.dumps({"step": step, "files": {"state": sha256}})
        self.store.put(keys.checkpoint_pointer("run-1", "LATEST"), pointer.encode())

    def back_up(self, store=None):
        return Backup(store or self.store, self.database, self.backup, self.temporary()).run()

    def temporary(self):
        self.number += 1
        made = self.folder / f"temporary-{self.number}"
        made.mkdir()
        return made

    def restore(self, name, snapshot_id=""):
        """Restore into a new store and database of this name; return them."""
        store, database = FolderStore(self.folder / f"store-{name}"), Database(f"sqlite:///{self.folder / name}.db")
        try:
            self.restore_into(store, database, snapshot_id)
        except BaseException:
            database.close()
            raise
        return store, database

    def restore_into(self, store, database, snapshot_id=""):
        restore(store, database, self.backup, self.temporary(), snapshot_id=snapshot_id, lease_seconds=0.1)


def rows(database):
    """All rows of a few tables, column by column."""
    found = []
    for table in (DatasetRow, RunRow, ChangeRow):
        columns = [column.key for column in table.__table__.columns]
        with database.read() as session:
            found += [[getattr(row, name) for name in columns] for row in session.scalars(select(table))]
    return found


@pytest.fixture
def place(tmp_path):
    made = Place(tmp_path)
    yield made
    made.database.close()


def test_store_and_rows_come_back_as_they_were(place):
    place.checkpoint(1)
    report = place.back_up()
    assert (report.copied, report.missing) == (3, [])  # blob, manifest, state of the checkpoint
    assert place.back_up().copied == 0
    store, database = place.restore("b")
    assert {key: store.get(key) for key in store.list("")} == {
        key: place.store.get(key) for key in place.store.list("")
    }
    assert rows(database) == rows(place.database)
    Datasets(database).add(dataset_pb2.Dataset(id="ds-2", name="new", created_at=timestamp(now())))
    assert [each.id for each in Datasets(database).page(common_pb2.PageRequest())[0]] == ["ds-2", "ds-1"]
    database.close()


def test_a_backup_that_is_torn_or_rotten_is_refused_and_nothing_is_written(place):
    snapshot_id = place.back_up().snapshot.id
    good = {key: place.backup.get(key) for key in place.backup.list("")}
    empty, database = FolderStore(place.folder / "empty"), Database(f"sqlite:///{place.folder / 'empty.db'}")
    for key, data in good.items():
        path = place.folder / "backup" / key
        flipped = data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :]
        for bad in (None, data[:-1], flipped):
            path.unlink() if bad is None else path.write_bytes(bad)
            with pytest.raises(Damaged, match=rf"Snapshot {snapshot_id} is (torn|rotten)"):
                place.restore_into(empty, database, snapshot_id)
            assert not list(empty.list(""))
            assert not rows(database)
            path.write_bytes(data)
    place.restore_into(empty, database, snapshot_id)
    assert rows(database) == rows(place.database)
    database.close()


def test_a_backup_that_was_killed_is_passed_over(place):
    first, second = place.back_up().snapshot, place.back_up().snapshot
    place.backup.delete(f"{snapshots.SNAPSHOTS}{second.id}/{snapshots.SNAPSHOT}")
    assert snapshots.snapshot_ids(place.backup) == [first.id]
    _, database = place.restore("b")
    database.close()
    with pytest.raises(Damaged, match="is torn: its backup was not finished"):
        place.restore("c", second.id)


def test_nothing_is_restored_over_something(place):
    place.back_up()
    with pytest.raises(FailedPrecondition, match="The store is not empty"):
        place.restore_into(place.store, place.database)
    with pytest.raises(FailedPrecondition, match="The database is not empty: table"):
        place.restore_into(FolderStore(place.folder / "empty"), place.database)


def test_nothing_is_restored_below_an_orchestrator_that_works(place):
    place.back_up()
    other = Database(f"sqlite:///{place.folder / 'b.db'}")

    class Beating(Database):
        def read(self):
            with self.write() as session:
                session.execute(update(LeaseRow).values(holder="somebody", beat=LeaseRow.beat + 1))
            return super().read()

    other.close()
    alive = Beating(f"sqlite:///{place.folder / 'b.db'}")
    with pytest.raises(FailedPrecondition, match="An orchestrator works with the database"):
        place.restore_into(FolderStore(place.folder / "empty"), alive)
    alive.close()


def test_what_the_store_has_lost_is_told(place):
    manifest = json.loads(place.store.get(keys.dataset_manifest("ds-1")))
    blob = keys.blob(manifest["items"][0]["image_sha256"])
    place.store.delete(blob)
    assert place.back_up().missing == [blob]


def test_a_checkpoint_that_is_replaced_meanwhile_is_whole_or_not_there(place):
    class Moving(FolderStore):
        """Writes a new checkpoint and removes the old one, just when the old one is about to be read."""

        steps = 1

        def fetch(self, key, target):
            if key == keys.checkpoint("run-1", self.steps, "state") and self.steps < 3:
                self.steps += 1
                place.checkpoint(self.steps)
                self.delete(key)
            super().fetch(key, target)

    place.checkpoint(1)
    place.back_up(Moving(place.folder / "store"))
    store, database = place.restore("b")
    pointer = json.loads(store.get(keys.checkpoint_pointer("run-1", "LATEST")))
    assert pointer["step"] == 3
    assert store.get(keys.checkpoint("run-1", 3, "state")) == b"weights of 3"
    database.close()


def test_no_collection_begins_while_a_backup_goes_on(place):
    hold(place.database, f"{BACKUP}-1", now().replace(year=2900))
    with pytest.raises(FailedPrecondition, match="A backup is under way"):
        refuse_while_held(place.database)
    place.back_up()
    with pytest.raises(FailedPrecondition, match="A backup is under way"):
        refuse_while_held(place.database)  # the end of one is not the end of another
    release(place.database, f"{BACKUP}-1")
    refuse_while_held(place.database)


def test_backups_and_the_removal_of_old_ones_keep_apart(place):
    hold(place.database, f"{PRUNE}-1", now().replace(year=2900))
    with pytest.raises(FailedPrecondition, match="Old snapshots are being removed"):
        place.back_up()
    with pytest.raises(FailedPrecondition, match="Old snapshots are being removed"), backing_up(place.database):
        pass
    release(place.database, f"{PRUNE}-1")
    refused = pytest.raises(FailedPrecondition, match="A backup is under way")
    with backing_up(place.database), refused, pruning(place.database):
        pass
    with pruning(place.database) as alive:
        alive()
        other = pytest.raises(FailedPrecondition, match="Old snapshots are being removed by another process")
        with other, pruning(place.database):
            pass
    with pruning(place.database):  # what was refused has left nothing behind
        pass
    place.back_up()


def check_whole(place, snapshot_id):
    """Everything that a snapshot names is there, as it was."""
    path = place.temporary() / "listing"
    snapshots.fetch(place.backup, snapshots.read_snapshot(place.backup, snapshot_id), snapshots.LISTING, path)
    with open_listing(path.with_suffix(".db")) as listing:
        listing.read(path)
        for entry in listing:
            assert hashlib.sha256(place.backup.get(keys.blob(entry.sha256))).hexdigest() == entry.sha256


def snapshots_of_steps(place, steps):
    """Back up a run again and again while it trains."""
    made = []
    for step in steps:
        place.checkpoint(step)
        made.append(place.back_up().snapshot.id)
    return made


@pytest.mark.parametrize("killed_after", [None, 0, 1, 2, 4, 7])
def test_removing_old_snapshots_leaves_the_others_whole(place, killed_after):
    made = snapshots_of_steps(place, range(1, 5))
    killed = Killing(place.folder / "backup", killed_after)
    with suppress(KeyboardInterrupt):
        prune(killed, place.temporary(), Keep(newest=2), now(), lambda: None)
    for each in snapshots.snapshot_ids(place.backup):
        if each in made[-2:]:
            check_whole(place, each)
    prune(place.backup, place.temporary(), Keep(newest=2), now(), lambda: None)
    assert {key.split("/")[1] for key in place.backup.list(snapshots.SNAPSHOTS)} == set(made[-2:])
    for each in made[-2:]:
        check_whole(place, each)
    digests = {keys.blob_sha256(key) for key in place.backup.list(keys.BLOBS)}
    assert hashlib.sha256(b"weights of 1").hexdigest() not in digests
    assert hashlib.sha256(b"weights of 4").hexdigest() in digests


class Killing(FolderStore):
    """A store whose user is killed after some deletions."""

    def __init__(self, folder, left):
        super().__init__(folder)
        self.left = left

    def delete(self, key):
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt
        super().delete(key)


def test_nothing_is_removed_while_a_snapshot_that_stays_cannot_be_read(place):
    made = snapshots_of_steps(place, range(1, 4))
    place.backup.put(f"{snapshots.SNAPSHOTS}{made[-1]}/{snapshots.LISTING}", b"rotten")
    before = list(place.backup.list(""))
    with pytest.raises(Damaged, match="rotten"):
        prune(place.backup, place.temporary(), Keep(newest=1), now(), lambda: None)
    assert list(place.backup.list("")) == before


@pytest.mark.parametrize(
    ("keep", "stay"),
    [
        (Keep(), "abcd"),
        (Keep(newest=1), "d"),
        (Keep(newest=9), "abcd"),
        (Keep(days=2.5), "cd"),
        (Keep(days=0.1), "d"),
        (Keep(newest=3, days=1), "bcd"),
        (Keep(newest=1, days=3.5), "bcd"),
    ],
)
def test_which_snapshots_stay(keep, stay):
    time = datetime(2030, 1, 10, tzinfo=UTC)
    found = [
        snapshots.Snapshot(
            id=name,
            made_at=(time - timedelta(days=4 - number)).isoformat(),
            layout="",
            objects=0,
            bytes=0,
            database_sha256="",
            listing_sha256="",
        )
        for number, name in enumerate("abcd")
    ]
    assert "".join(each.id for each in choose(found, keep, time)) == stay
