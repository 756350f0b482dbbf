"""Every object key and every id rule, spelled once.

A key is a path of components joined by "/". Components are letters, digits and ``. _ = + -`` or space, and begin with a
letter, a digit or "_": so no key is absolute, climbs with "..", or hides behind a leading ".", but for the three names
that Zarr 2 gives its metadata. Ids are checked before they become part of a key, file names inside a checkpoint or
model by the same rule as keys.
"""

import re
from typing import Literal, NamedTuple

from cellsparse_common.errors import InvalidArgument

ID_PATTERN = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
"""Pattern of the ids of datasets, runs, models and studies; the protos state the same."""

DATASETS = "datasets/"
BLOBS = "blobs/"
RUNS = "runs/"
UPLOADS = "uploads/"
INCOMING = "incoming/"
"""Files that clients send straight to the store, until their hash is checked."""
TRANSFERS = "transfers/"
STUDIES = "studies/"
PROJECTS = "projects/"
PROMPTERS = "prompters/"
IMPORTS = "imports/"
"""Images that others put into the store, to be read where they lie."""

# File systems end at 255 bytes per name; S3 ends at 1,024 per key, of which a prefix in the bucket needs some.
MAX_COMPONENT = 255
MAX_KEY = 900

_COMPONENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._ =+-]*|\.z(?:attrs|group|array)")
_LABEL_TILE = re.compile(
    rf"{PROJECTS}[^/]+/images/(?P<image>[^/]+)/(?:annotation|layers/(?P<layer>[^/]+))/(?P<level>[0-9]+)/(?P<name>.+)"
)
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SHOWN = 100

Pointer = Literal["LATEST", "BEST"]
TransferPart = Literal["image", "result"]
PrompterPart = Literal["encoder", "decoder"]


def check_id(value: str, field: str = "id") -> str:
    """Return an id as it is, if it may become part of a key.

    Args:
        value: The id of a dataset, run, model or study.
        field: Path of the request field it came from.

    Raises:
        InvalidArgument: The id does not match `ID_PATTERN`.
    """
    if not ID_PATTERN.fullmatch(value):
        raise InvalidArgument(
            f"{field} is {_shown(value)}; allowed: 1 to 63 lower-case letters, digits and '-', beginning with a letter "
            "or digit.",
            field,
        )
    return value


def is_key(value: str) -> bool:
    """Return whether a string is an object key."""
    return _problem(value) is None


def check_key(value: str) -> str:
    """Return a key as it is, if it is one.

    Raises:
        InvalidArgument: A component is empty, hidden, too long or has another character than allowed.
    """
    problem = _problem(value)
    if problem:
        raise InvalidArgument(f"Object key {_shown(value)} {problem}.")
    return value


def check_prefix(value: str) -> str:
    """Return a prefix of keys as it is: "", or the beginning of a key, which may end anywhere.

    Raises:
        InvalidArgument: No key could begin like this.
    """
    problem = _problem(value.removesuffix("/")) if value else None
    if problem:
        raise InvalidArgument(f"Prefix {_shown(value)} {problem}.")
    return value


def dataset_prefix(dataset_id: str) -> str:
    """Return the prefix of all objects of one dataset alone (its images are shared blobs)."""
    return f"{DATASETS}{check_id(dataset_id, 'dataset_id')}/"


def dataset_manifest(dataset_id: str) -> str:
    """Return the key of a dataset's manifest: items with image and label blobs, splits and counts, as JSON."""
    return f"{dataset_prefix(dataset_id)}manifest.json"


def blob(sha256: str) -> str:
    """Return the key of an image or label image with this SHA-256 (64 hex digits).

    Raises:
        InvalidArgument: Not 64 lower-case hex digits.
    """
    if not _SHA256.fullmatch(sha256):
        raise InvalidArgument(f"Blob {_shown(sha256)} is not a SHA-256 of 64 lower-case hex digits.")
    return f"{BLOBS}{sha256[:2]}/{sha256}"


def blob_sha256(key: str) -> str:
    """Return the SHA-256 of a blob's key, or "" for the key of anything else."""
    sha256 = key.rpartition("/")[2]
    return sha256 if _SHA256.fullmatch(sha256) and key == blob(sha256) else ""


def run_prefix(run_id: str) -> str:
    """Return the prefix of all objects of one run."""
    return f"{RUNS}{check_id(run_id, 'run_id')}/"


def run_spec(run_id: str) -> str:
    """Return the key of a run's specification: settings, seed, versions and data hashes, enough to repeat it."""
    return f"{run_prefix(run_id)}spec.json"


def attempt_events(run_id: str, attempt: int) -> str:
    """Return the key of the event log of one attempt (1, 2, ...), one JSON object per line."""
    return f"{_attempt(run_id, attempt)}events.jsonl"


def attempt_log(run_id: str, attempt: int) -> str:
    """Return the key of the output that the training process of one attempt (1, 2, ...) printed."""
    return f"{_attempt(run_id, attempt)}log.txt"


def checkpoints_prefix(run_id: str) -> str:
    """Return the prefix of all checkpoints of a run and the pointers to them."""
    return f"{run_prefix(run_id)}checkpoints/"


def checkpoint_prefix(run_id: str, step: int) -> str:
    """Return the prefix of one checkpoint. Steps have leading zeros, so that listings are in order of training."""
    return f"{checkpoints_prefix(run_id)}{_whole('step', step, least=0):08d}/"


def checkpoint(run_id: str, step: int, file: str) -> str:
    """Return the key of one file of the checkpoint after `step` steps."""
    return f"{checkpoint_prefix(run_id, step)}{check_key(file)}"


def checkpoint_pointer(run_id: str, which: Pointer) -> str:
    """Return the key of the pointer to the newest or best complete checkpoint; written after all its files."""
    return f"{checkpoints_prefix(run_id)}{which}"


def model_prefix(run_id: str) -> str:
    """Return the prefix of a run's final model, in the format of its stock tool."""
    return f"{run_prefix(run_id)}model/"


def model_file(run_id: str, name: str) -> str:
    """Return the key of one file of the final model."""
    return f"{model_prefix(run_id)}{check_key(name)}"


def upload(model_id: str) -> str:
    """Return the key of the uploaded file of a model, which exists only during its import."""
    return f"{UPLOADS}{check_id(model_id, 'model_id')}"


def incoming(project_id: str, sha256: str) -> str:
    """Return the key of a file that a client sends straight to the store; a project of "" is nobody's."""
    return f"{INCOMING}{check_id(project_id, 'project_id') if project_id else '_'}/{blob(sha256).rpartition('/')[2]}"


def transfer_prefix(transfer_id: str) -> str:
    """Return the prefix of the objects of one transfer (see `transfer`)."""
    return f"{TRANSFERS}{check_id(transfer_id, 'transfer_id')}/"


def transfer(transfer_id: str, part: TransferPart) -> str:
    """Return the key of a large image on its way to a trainer, or of its result; they exist during one call."""
    return f"{transfer_prefix(transfer_id)}{part}"


def report_file(run_id: str, name: str) -> str:
    """Return the key of one file of a run's report."""
    return f"{run_prefix(run_id)}report/{check_key(name)}"


def study_prefix(study_id: str) -> str:
    """Return the prefix of all objects of one study alone (its runs, models and label sets are kept apart)."""
    return f"{STUDIES}{check_id(study_id, 'study_id')}/"


def study_report_file(study_id: str, name: str) -> str:
    """Return the key of one file of a study's report, written when the study ends."""
    return f"{study_prefix(study_id)}report/{check_key(name)}"


def project_prefix(project_id: str) -> str:
    """Return the prefix of all objects of one project (the images as they were uploaded are shared blobs)."""
    return f"{PROJECTS}{check_id(project_id, 'project_id')}/"


def project_image_prefix(project_id: str, image_id: str) -> str:
    """Return the prefix of all tiles of one image of a project."""
    return f"{project_prefix(project_id)}images/{check_id(image_id, 'image_id')}/"


def image_tile(project_id: str, image_id: str, *, level: int, plane: int, channel: int, x: int, y: int) -> str:
    """Return the key of a tile of pixels, which never changes."""
    prefix = f"{project_image_prefix(project_id, image_id)}pixels/{_whole('level', level, least=0)}/"
    return f"{prefix}{_place(plane, x, y)}-c{_whole('channel', channel, least=0)}"


def label_tiles_prefix(project_id: str, image_id: str, layer_id: str = "") -> str:
    """Return the prefix of all label tiles of an annotation, or of a layer."""
    part = f"layers/{check_id(layer_id, 'layer_id')}" if layer_id else "annotation"
    return f"{project_image_prefix(project_id, image_id)}{part}/"


def label_tile(project_id: str, image_id: str, layer_id: str, name: str) -> str:
    """Return the key of a label tile of the full resolution by the name that its row in the database holds."""
    return f"{label_tiles_prefix(project_id, image_id, layer_id)}0/{check_key(name)}"


def coarse_label_tiles(project_id: str, image_id: str, layer_id: str, *, level: int, plane: int, x: int, y: int) -> str:
    """Return the prefix of the label tile at one place of a coarser level; what follows is its revision."""
    prefix = f"{label_tiles_prefix(project_id, image_id, layer_id)}{_whole('level', level, least=1)}/"
    return f"{prefix}{_place(plane, x, y)}/"


class LabelTileName(NamedTuple):
    """What the key of a label tile says."""

    image_id: str
    layer_id: str
    """Empty for the annotation."""
    level: int
    name: str
    """Level 0: the name that its row holds; else its place and its revision, with "/" in between."""


def parse_label_tile(key: str) -> LabelTileName | None:
    """Return what the key of a label tile says; None for the key of anything else."""
    found = _LABEL_TILE.fullmatch(key)
    if found is None:
        return None
    return LabelTileName(found["image"], found["layer"] or "", int(found["level"]), found["name"])


def import_prefix(path: str) -> str:
    """Return the prefix of an image that lies below `IMPORTS`, such as an OME-Zarr.

    Raises:
        InvalidArgument: It is no path there.
    """
    problem = _problem(path)
    if problem:
        raise InvalidArgument(f"The stored image {_shown(path)} {problem}.", "stored")
    return f"{IMPORTS}{path}/"


def store_probe() -> str:
    """Return the key of the object by which the orchestrator finds out whether the store answers."""
    return "probes/orchestrator"


def checked_probe() -> str:
    """Return the key of the object by which the orchestrator finds out whether the store checks hashes."""
    return "probes/checked"


def installation() -> str:
    """Return the key of the object with the id of the installation that the store belongs to."""
    return "installation/id"


def prompter_prefix(prompter_id: str) -> str:
    """Return the prefix of all objects of one prompter."""
    return f"{PROMPTERS}{check_id(prompter_id, 'prompter_id')}/"


def prompter_file(prompter_id: str, part: PrompterPart) -> str:
    """Return the key of the ONNX file of a prompter's encoder or decoder, which never changes."""
    return f"{prompter_prefix(prompter_id)}{part}.onnx"


def _place(plane: int, x: int, y: int) -> str:
    return f"z{_whole('plane', plane, least=0)}-x{_whole('x', x, least=0)}-y{_whole('y', y, least=0)}"


def _attempt(run_id: str, attempt: int) -> str:
    return f"{run_prefix(run_id)}attempts/{_whole('attempt', attempt, least=1)}/"


def _whole(field: str, value: int, *, least: int) -> int:
    if value < least:
        raise InvalidArgument(f"{field} is {value}; allowed: {least} and more.", field)
    return value


def _problem(value: str) -> str | None:
    if len(value) > MAX_KEY:
        return f"has {len(value)} characters; allowed: {MAX_KEY}"
    for component in value.split("/"):
        if not _COMPONENT.fullmatch(component):
            return (
                f"has the component {_shown(component)}; allowed: letters, digits and '. _ = + -' or space, "
                "beginning with a letter, a digit or '_'"
            )
        if len(component) > MAX_COMPONENT:
            return f"has a component of {len(component)} characters; allowed: {MAX_COMPONENT}"
    return None


def _shown(value: str) -> str:
    return repr(value if len(value) <= _SHOWN else value[:_SHOWN] + "...")
