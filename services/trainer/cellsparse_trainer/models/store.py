"""Trained models in the object store: `runs/<id>/model/…`, complete once `model.json` is there."""

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from cellsparse_common.errors import Damaged, NotFound
from cellsparse_common.files import sha256_of
from cellsparse_common.storage import ObjectStore, keys

CARD = "model.json"


def publish_model(store: ObjectStore, run_id: str, folder: Path, card: dict[str, Any]) -> int:
    """Upload a model folder, the card last: from then on the model exists. Return the bytes of its files.

    Args:
        store: The store.
        run_id: Id of the run, which is the model's id.
        folder: What `Model.export` wrote; subfolders allowed.
        card: What the model is: backend, preprocessing, versions, scores; "files" is added.

    Raises:
        StorageError: The store could not be written.
    """
    files, size = {}, 0
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        store.put(keys.model_file(run_id, name), path)
        files[name] = sha256_of(path)
        size += path.stat().st_size
    text = json.dumps({**card, "files": files}, indent=2, sort_keys=True).encode()
    store.put(keys.model_file(run_id, CARD), text)
    return size + len(text)


def read_card(store: ObjectStore, model_id: str) -> dict[str, Any]:
    """Return a model's card.

    Raises:
        NotFound: There is no such model.
        StorageError: The store does not answer, or the card is damaged.
    """
    try:
        card = json.loads(store.get(keys.model_file(model_id, CARD)))
    except NotFound as error:
        raise NotFound(f"Model {model_id!r} does not exist.", "model_id") from error
    except ValueError as error:
        raise Damaged(f"The card of model {model_id} is damaged: {error}.") from error
    if not isinstance(card, dict) or not isinstance(card.get("files"), dict):
        raise Damaged(f"The card of model {model_id} is damaged: it has no list of files.")
    return card


def fetch_model(store: ObjectStore, model_id: str, cache: Path) -> tuple[Path, dict[str, Any]]:
    """Return a local folder with a model's files, and its card; downloads once.

    Raises:
        NotFound: There is no such model.
        StorageError: A file is missing or damaged.
    """
    card = read_card(store, model_id)
    folder = cache / model_id
    if (folder / CARD).is_file() and json.loads((folder / CARD).read_text()) == card:
        return folder, card
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=".") as staging:
        target = Path(staging) / "model"
        for name, digest in card["files"].items():
            key = keys.model_file(model_id, name)  # also refuses a name that would leave the folder
            path = target / name
            path.parent.mkdir(parents=True, exist_ok=True)
            store.fetch(key, path)
            if sha256_of(path) != digest:
                raise Damaged(f"Model {model_id} is damaged: the SHA-256 of {name!r} differs.")
        (target / CARD).write_text(json.dumps(card))
        shutil.rmtree(folder, ignore_errors=True)
        target.replace(folder)
    return folder, card
