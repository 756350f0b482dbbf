"""What an import of a model removes of those before it that were killed."""

import pytest

from cellsparse_common.errors import Unavailable
from cellsparse_common.storage import FolderStore, keys
from cellsparse_orchestrator.catalogue.model_import import ModelImports
from cellsparse_orchestrator.catalogue.model_uploads import ModelUpload
from cellsparse_orchestrator.catalogue.models import Models
from cellsparse_orchestrator.db.session import Database
from cellsparse_proto.v1 import orchestrator_pb2

KILLED = "model-0123456789ab"
OTHERS = ["uploads/run-0123456789ab", "uploads/model-1", f"uploads/{KILLED}/a", "uploads/Not an id"]


@pytest.fixture
def imports(tmp_path):
    database = Database(f"sqlite:///{tmp_path / 'a.db'}")
    store = FolderStore(tmp_path / "store")
    yield ModelImports(store, Models(database)), store
    database.close()


def fail_to_import(imports, folder):
    file = folder / "model"
    file.write_bytes(b"model")

    def publish(_request):
        raise Unavailable("no trainer")

    with pytest.raises(Unavailable, match="no trainer"):
        imports.add(ModelUpload(header=orchestrator_pb2.ImportModelHeader(), file=file, sha256=""), publish)


def test_what_killed_imports_left_is_removed(imports, tmp_path):
    made, store = imports
    store.put(keys.upload(KILLED), b"")
    store.put(keys.model_file(KILLED, "network.pt"), b"half")
    fail_to_import(made, tmp_path)
    assert not list(store.list(keys.run_prefix(KILLED)))
    assert not store.exists(keys.upload(KILLED))


@pytest.mark.parametrize("key", OTHERS)
def test_other_objects_beside_uploads_stay(imports, tmp_path, key):
    made, store = imports
    store.put(key, b"another one's")
    store.put("runs/run-0123456789ab/spec.json", b"{}")
    store.put("runs/model-1/spec.json", b"{}")
    fail_to_import(made, tmp_path)
    assert store.exists(key)
    assert store.exists("runs/run-0123456789ab/spec.json")
    assert store.exists("runs/model-1/spec.json")
