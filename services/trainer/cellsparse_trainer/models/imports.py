"""Models from files of other tools: checked and published by the inference process, in a temporary folder."""

import json
import platform
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from cellsparse_common.channels import MAX_CHANNELS
from cellsparse_common.config.settings import StoreSettings
from cellsparse_common.errors import CellsparseError, Damaged, InvalidArgument, ResourceExhausted
from cellsparse_common.files import sha256_of
from cellsparse_common.storage import keys, open_store
from cellsparse_proto.v1 import trainer_pb2
from cellsparse_trainer.config.backend_config import ModelConfig
from cellsparse_trainer.contract import CONFIG_FILE, BackendSpec, Config, find_backend
from cellsparse_trainer.models.exports import RECORD_FILE
from cellsparse_trainer.models.inference import InferenceContext
from cellsparse_trainer.models.store import publish_model

MAX_BYTES = 2**31
"""Most bytes that a zip may unpack to."""
MAX_FILES = 200
"""Most files in a zip; a model of the stock tools has a handful."""
_FEEDING = ("channel", "lower_percentile", "upper_percentile")


def publish_upload(context: InferenceContext, serialized_request: bytes, folder: Path) -> None:
    """Check and publish the model of a serialized `PublishModelRequest`. Runs in the inference process.

    Args:
        context: The backend, where models are kept, and the device.
        serialized_request: The request.
        folder: An empty folder; the caller removes it.

    Raises:
        InvalidArgument: The file is no model of the backend.
        ResourceExhausted: It unpacks to too much.
        StorageError: The store failed.
    """
    request = trainer_pb2.PublishModelRequest.FromString(serialized_request)
    spec, store = find_backend(context.package), open_store(StoreSettings())
    upload = folder / "upload"
    store.fetch(keys.upload(request.model_id), upload)
    if sha256_of(upload) != request.sha256:
        raise Damaged(f"The uploaded file of {request.model_id} is damaged: its SHA-256 differs.")
    source = unpack(upload, folder / "files")
    record = read_record(source, spec.name)
    target = folder / "model"
    target.mkdir()
    channels = _import(spec, source, target, request.settings, record, context.device)
    publish_model(store, request.model_id, target, _card(spec, request, record, channels))


def unpack(upload: Path, folder: Path) -> Path:
    """Unpack a zip into a new folder and return that; a file that PyTorch wrote is a zip too, but is returned as it is.

    Raises:
        InvalidArgument: The zip is damaged, or a name in it would leave the folder.
        ResourceExhausted: It holds too many files, or they would take too much space.
    """
    if not zipfile.is_zipfile(upload):
        return upload
    try:
        with zipfile.ZipFile(upload) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            if sum(entry.file_size for entry in entries) > MAX_BYTES:
                raise ResourceExhausted(
                    f"The zip unpacks to more than {MAX_BYTES // 2**20} MiB, the most allowed.", "file"
                )
            if any(entry.filename.endswith("/data.pkl") for entry in entries):
                return upload
            if len(entries) > MAX_FILES:
                raise ResourceExhausted(f"The zip holds {len(entries)} files; allowed: {MAX_FILES}.", "file")
            for entry in entries:
                # Only what could be an object's key: no absolute names, no climbing, nothing hidden.
                if not keys.is_key(entry.filename):
                    raise InvalidArgument(
                        f"The zip holds a file called {entry.filename[:100]!r}, which is not allowed.", "file"
                    )
                path = folder / entry.filename
                path.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(entry) as packed, path.open("xb") as file:
                    shutil.copyfileobj(packed, file, 2**20)
    except CellsparseError:
        raise
    except Exception as error:  # whatever a damaged zip makes zipfile raise
        raise InvalidArgument(f"The zip cannot be unpacked: {error}.", "file") from error
    if not folder.is_dir():
        raise InvalidArgument("The zip is empty.", "file")
    return folder


def read_record(source: Path, backend: str) -> dict[str, Any] | None:
    """Return the record that our own export adds to its model; None if there is none.

    Raises:
        InvalidArgument: It is of another backend, or damaged.
    """
    found = sorted(source.rglob(RECORD_FILE)) if source.is_dir() else []
    if not found:
        return None
    try:
        record = json.loads(found[0].read_text(encoding="utf-8"))
        named, feeding = record["backend"], record["preprocessing"]
        shape_is_good = isinstance(record["config"], dict) and all(name in feeding for name in _FEEDING)
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidArgument(f"{RECORD_FILE} in the zip is damaged: {error}.", "file") from error
    if not shape_is_good:
        raise InvalidArgument(f"{RECORD_FILE} in the zip is damaged: it does not say how the model is fed.", "file")
    if named != backend:
        raise InvalidArgument(f"The file holds a {named} model; backend is {backend}.", "settings.backend")
    return cast(dict[str, Any], record)


def _import(
    spec: BackendSpec[Config],
    source: Path,
    target: Path,
    settings: trainer_pb2.ImportSettings,
    record: Mapping[str, Any] | None,
    device: str,
) -> tuple[int, ...]:
    """Make the backend write the model, and check that it opens and segments.

    The device is that of predictions: TensorFlow cannot change it later in the same process.

    Returns:
        Image channels that the network gets, where they are several.
    """
    backend = spec.framework()
    config = None if record is None else record["config"]
    try:
        backend.import_model(source, target, settings, config)
        stored = ModelConfig.from_json((target / CONFIG_FILE).read_text(encoding="utf-8"))
        channels = _channels(spec, settings, tuple(stored.config["plan"].get("channels", ())))
        backend.open_model(target, device).predict(_noise(_axes(record), len(channels)))
        return channels
    except CellsparseError:
        raise
    except Exception as error:  # whatever damaged files make a framework raise
        first = (str(error).splitlines() or [type(error).__name__])[0][:300].rstrip(".")
        raise InvalidArgument(f"The file holds no {spec.name} model: {first}.", "file") from error


def _channels(
    spec: BackendSpec[Config], settings: trainer_pb2.ImportSettings, network: tuple[int, ...]
) -> tuple[int, ...]:
    """Return the image channels that an imported network gets; empty for one.

    Args:
        spec: Its backend.
        settings: The user's description: `channels` replaces those of the file.
        network: The channels that the file's network has; empty for one.

    Raises:
        InvalidArgument: The network does not take as many, or one is named twice.
    """
    given = tuple(settings.channels)
    if not given:
        return network
    kind = spec.light().Config
    takes = max(1, len(network))
    good = len(given) == takes if kind.FIXED_CHANNELS else len(given) <= kind.MOST_CHANNELS
    if not good or len(set(given)) != len(given) or settings.HasField("channel"):
        allowed = takes if kind.FIXED_CHANNELS else f"1 to {kind.MOST_CHANNELS}"
        raise InvalidArgument(
            f"channels are {', '.join(map(str, given))}; this {kind.TOOL} network takes {allowed}, each once, and no "
            "channel besides.",
            "settings.channels",
        )
    return given if len(given) > 1 else ()


def _axes(record: Mapping[str, Any] | None) -> str:
    return "ZYX" if record is not None and record.get("axes") == "ZYX" else "YX"


def _noise(axes: str, channels: int) -> npt.NDArray[np.float32]:
    shape: tuple[int, ...] = (64, 64) if axes == "YX" else (16, 64, 64)
    shape = (*shape, channels) if channels > 1 else shape
    return np.random.default_rng(0).random(shape, dtype=np.float32)


def _card(
    spec: BackendSpec[Config],
    request: trainer_pb2.PublishModelRequest,
    record: Mapping[str, Any] | None,
    channels: tuple[int, ...],
) -> dict[str, Any]:
    """Return the card of an imported model: like that of a trained one, without a run."""
    settings, backend = request.settings, spec.framework()
    stock = dict(zip(_FEEDING, (None, *backend.STOCK_PERCENTILES), strict=True))
    feeding = stock if record is None else {name: record["preprocessing"][name] for name in _FEEDING}
    given: dict[str, Any] = {name: getattr(settings, name) for name in _FEEDING if settings.HasField(name)}
    if len(settings.channels) == 1:
        given["channel"] = settings.channels[0]
    return {
        "version": 1,
        "backend": spec.name,
        "run_id": "",
        "dataset_id": "",
        "step": 0,
        "axes": _axes(record),
        "spacing": _spacing(record),
        "validation": {},
        "preprocessing": {**_checked({**feeding, **given}), "channels": list(channels)},
        "import": {"sha256": request.sha256},
        "versions": {**backend.versions(), "python": platform.python_version()},
    }


def _spacing(record: Mapping[str, Any] | None) -> list[float]:
    """Return the pixel size along each axis of the model's training items; empty if unknown."""
    found = [] if record is None else record.get("spacing", [])
    good = isinstance(found, list) and all(type(size) in (int, float) and 0 < size < float("inf") for size in found)
    return [float(size) for size in found] if good else []


def _checked(feeding: dict[str, Any]) -> dict[str, Any]:
    """Return how a model is fed, checked, since a record comes from outside."""
    channel, low, high = (feeding[name] for name in _FEEDING)
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in (low, high))
    if not numbers or not 0 <= low <= 50 <= high <= 100 or low == high:
        raise InvalidArgument(
            f"The percentiles are {low} and {high}; allowed: 0 to 50 and 50 to 100, not both 50.", "settings"
        )
    if channel is not None and not (type(channel) is int and 0 <= channel < MAX_CHANNELS):
        raise InvalidArgument(f"channel is {channel!r}; allowed: 0 to {MAX_CHANNELS - 1}.", "settings.channel")
    return feeding
