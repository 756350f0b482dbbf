"""A store is collected by the installation that it belongs to, and by no other one."""

import pytest

from cellsparse_common.errors import FailedPrecondition
from cellsparse_common.storage import FolderStore, keys
from cellsparse_orchestrator.catalogue.datasets import Datasets
from cellsparse_orchestrator.collection.installation import check_installation
from cellsparse_orchestrator.db.session import Database
from cellsparse_proto.v1 import dataset_pb2


@pytest.fixture
def databases(tmp_path):
    opened = [Database(f"sqlite:///{tmp_path / name}.db") for name in ("a", "b")]
    yield opened
    for each in opened:
        each.close()


def test_the_store_of_another_installation_is_not_collected(databases, tmp_path):
    ours, other = databases
    store = FolderStore(tmp_path / "store")
    store.put(keys.dataset_manifest("ds-1"), b"{}")
    Datasets(ours).add(dataset_pb2.Dataset(id="ds-1"))
    with pytest.raises(FailedPrecondition, match=r"\(ds-1 for one\).* knows none of them"):
        check_installation(store, other, claim=True)
    check_installation(store, ours, claim=False)
    assert not store.exists(keys.installation())
    check_installation(store, ours, claim=True)
    check_installation(store, ours, claim=True)
    with pytest.raises(FailedPrecondition, match="belongs to installation"):
        check_installation(store, other, claim=True)


def test_a_new_installation_has_an_empty_store(databases, tmp_path):
    store = FolderStore(tmp_path / "store")
    check_installation(store, databases[0], claim=True)
    assert store.get(keys.installation()).startswith(b"installation-")
