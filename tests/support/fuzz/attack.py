"""The cases: each is a name such as `call:17`, from which everything that it sends follows."""

import base64
import functools
import json
import random
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from support import tiny_sam
from support.fuzz import web
from support.fuzz.files import IMAGE_FILE, LABEL_FILE, hostile_bytes, hostile_file, valid_files_once, zipped
from support.fuzz.messages import ORCHESTRATOR, SPARSIFIER, TRAINER, hostile_messages
from support.fuzz.world import WATCH_SECONDS, World
from support.limits import PATIENCE
from support.model_imports import import_messages
from support.orchestrator import messages as upload_messages

from cellsparse_proto.v1 import (
    common_pb2,
    project_pb2,
    sparsifier_pb2,
    suggestion_pb2,
    trainer_pb2,
)

TRAIN = common_pb2.SPLIT_TRAIN
BROKEN = {"INTERNAL", "UNKNOWN", "DATA_LOSS", "UNIMPLEMENTED"}
"""Statuses that no request may get, however hostile."""
CLIENTS = 4
_DESTRUCTIVE = ("Delete", "SetProjectLimits", "Revoke")
_STARTS = {"CreateRun", "CreateRuns", "TrainProject", "CreateStudy", "ResumeStudy"}
_STARTING = ("/runs", "/runs/batch", "/train", "/studies")


def play(world: World, case: str) -> str:
    """Send a case's request or file; return what is wrong with the answer, empty if nothing is."""
    kind = case.partition(":")[0]
    number = random.Random(case)
    try:
        return _KINDS[kind](world, number)
    except httpx.HTTPError as error:
        return f"the gateway answered nothing: {type(error).__name__}: {error}"


def play_all(world: World, cases: Iterable[str], tell: Callable[[str], None] = print) -> list[str]:
    """Play cases from several clients at once; return what broke, each with its case, and tell it as it happens."""
    broken: list[str] = []
    lock = threading.Lock()
    waiting = iter(list(cases))

    def take() -> Iterator[str]:
        while True:
            with lock:
                case = next(waiting, None)
            if case is None:
                return
            yield case

    def work() -> None:
        for case in take():
            wrong = play(world, case)
            if wrong:
                broken.append(f"{case}: {wrong}")
                tell(broken[-1])

    with ThreadPoolExecutor(CLIENTS) as pool:
        for done in [pool.submit(work) for _ in range(CLIENTS)]:
            done.result()
    return broken


def cases(files: int, requests: int, first: int = 0) -> list[str]:
    """Return the names of so many cases: hostile files, and requests, of which a third are HTTP."""
    calls = [f"{'web' if number % 3 == 0 else 'call'}:{number}" for number in range(first, first + requests)]
    uploads = [f"file:{number}" for number in range(first, first + files)]
    step = max(1, len(calls) // max(1, len(uploads)))
    mixed = []
    for at, call in enumerate(calls):
        mixed.append(call)
        if at % step == 0 and uploads:
            mixed.append(uploads.pop())
    return mixed + uploads


def _call(world: World, number: random.Random) -> str:
    server, methods = number.choices(
        [("orchestrator", ORCHESTRATOR), ("trainer", TRAINER), ("sparsifier", SPARSIFIER)], [10, 3, 2]
    )[0]
    method = number.choice(methods)
    doomed = method.name.startswith(_DESTRUCTIVE)
    wire = hostile_messages(number, method, world.doomed if doomed else world.ids)
    if not method.client_streaming and number.random() < 0.95:
        wire = wire[:1]
    seconds = WATCH_SECONDS if method.name.startswith("Watch") else PATIENCE
    status, sentence = world.call(server, f"/{method.containing_service.full_name}/{method.name}", wire, seconds)
    if status == "OK" and method.name in _STARTS:
        world.tidy()
    if status == "OK" and method.name == "StartTraining":
        _stop_training(world, method, wire[0])
    if status == "DEADLINE_EXCEEDED" and seconds == WATCH_SECONDS:
        return ""
    return _wrong(f"{server} {method.name}", status, sentence)


def _stop_training(world: World, method: MethodDescriptor, data: bytes) -> None:
    request = trainer_pb2.StartTrainingRequest.FromString(data)
    stop = trainer_pb2.StopTrainingRequest(run_id=request.run_id, attempt=request.attempt)
    world.call("trainer", f"/{method.containing_service.full_name}/StopTraining", [stop.SerializeToString()])


def _web(world: World, number: random.Random) -> str:
    route = number.choice(_routes(world))
    ids = world.doomed if route.method == "DELETE" else world.ids
    request = web.hostile_request(number, route, world.description["components"]["schemas"], ids)
    headers = {name: value.encode("latin-1", "replace") for name, value in request.headers.items()}
    status, text = world.ask(request.method, request.path, content=request.body, headers=headers)
    if (
        status in (200, 201, 202)
        and route.method == "POST"
        and route.path.endswith(("/runs", "/runs/batch", "/train", "/studies"))
    ):
        world.tidy()
    return _wrong_http(f"{request.method} {request.path[:300]}", status, text)


@functools.lru_cache(1)
def _routes(world: World) -> list[web.Route]:
    return web.routes(world.description)


def _file(world: World, number: random.Random) -> str:
    kind = number.random()
    if kind < 0.1:
        return _model_file(world, number)
    if kind < 0.16:
        return _prompter_file(world, number)
    name = number.choice(sorted(valid_files_once()))
    data = valid_files_once()[name] if number.random() < 0.1 else hostile_file(number, name)
    send = number.choice(_SENDERS)
    wrong = send(world, number, data[: 8 * 2**20])
    return f"{name} {wrong}" if wrong else ""


def _model_file(world: World, number: random.Random) -> str:
    name = number.choice(sorted(world.model_files))
    data = hostile_bytes(number, world.model_files[name])
    return _stream(world, "OrchestratorService/ImportModel", import_messages(data, "unet", name="hostile"))


def _prompter_file(world: World, number: random.Random) -> str:
    encoder, decoder = tiny_sam.encoder(prepares=False), tiny_sam.decoder()
    if number.random() < 0.5:
        encoder = hostile_bytes(number, encoder)
    else:
        decoder = hostile_bytes(number, decoder)
    if number.random() < 0.3:
        body = zipped({"encoder.onnx": encoder, "decoder.onnx": decoder})
        params = {"name": "hostile", "licence": "MIT"}
        return _wrong_http("POST /prompters", *world.ask("POST", "/api/v1/prompters", content=body, params=params))
    return _stream(world, "PrompterService/AddPrompter", tiny_sam.prompter_messages("hostile", (encoder, decoder)))


def _as_dataset(world: World, number: random.Random, data: bytes) -> str:
    pair = number.choice(((data, LABEL_FILE), (IMAGE_FILE, data), (data, data)))
    stream = upload_messages([("item", TRAIN, *pair)], "hostile")
    return _stream(world, "DatasetService/CreateDataset", stream)


def _as_project_image(world: World, number: random.Random, data: bytes) -> str:
    header = project_pb2.AddImageHeader(project_id=world.ids["project_id"][0], name="hostile")
    request = project_pb2.AddImageRequest
    stream = [request(header=header), *_chunks(request, data), request(end=project_pb2.FileEnd(size=len(data)))]
    return _stream(world, "ProjectService/AddImage", stream)


def _as_labels(world: World, number: random.Random, data: bytes) -> str:
    header = project_pb2.ImportLabelsHeader(image_id=world.ids["image_id"][0])
    request = project_pb2.ImportLabelsRequest
    stream = [request(header=header), *_chunks(request, data), request(end=project_pb2.FileEnd(size=len(data)))]
    return _stream(world, "ProjectService/ImportLabels", stream)


def _as_prediction(world: World, number: random.Random, data: bytes) -> str:
    request = trainer_pb2.PredictRequest(model_id=world.ids["model_id"][0], image=data)
    return _stream(world, "OrchestratorService/Predict", [request])


def _as_direct_prediction(world: World, number: random.Random, data: bytes) -> str:
    request = trainer_pb2.PredictRequest(model_id=world.ids["model_id"][0], image=data)
    return _stream(world, "TrainerService/Predict", [request], "trainer")


def _as_sparsify(world: World, number: random.Random, data: bytes) -> str:
    image, label = number.choice(((data, LABEL_FILE), (IMAGE_FILE, data)))
    settings = sparsifier_pb2.SparsifySettings(mode=sparsifier_pb2.SELECTION_MODE_MINMAX, k=1, background=1)
    request = sparsifier_pb2.SparsifyRequest(image=image, label=label, settings=settings)
    return _stream(world, "SparsifierService/Sparsify", [request], "sparsifier")


def _as_suggestion(world: World, number: random.Random, data: bytes) -> str:
    request = sparsifier_pb2.SuggestCellsRequest
    method = suggestion_pb2.SUGGESTION_METHOD_AUTO
    image = sparsifier_pb2.SuggestCellsImage(name="a", image=IMAGE_FILE)
    setattr(image, number.choice(("image", "label")), data)
    if number.random() < 0.3:
        image.predictions.append(data)
    stream = [
        request(header=sparsifier_pb2.SuggestCellsHeader(method=method, count=3)),
        request(image=image),
        request(end=sparsifier_pb2.SuggestCellsEnd(images=1)),
    ]
    return _stream(world, "SparsifierService/SuggestCells", stream, "sparsifier")


def _as_body(world: World, number: random.Random, data: bytes) -> str:
    project, image, model = (world.ids[name][0] for name in ("project_id", "image_id", "model_id"))
    path = number.choice(
        (
            f"/api/v1/projects/{project}/images?name=hostile",
            f"/api/v1/images/{image}/labels",
            f"/api/v1/predictions?model_id={model}",
            "/api/v1/datasets?name=hostile",
            "/api/v1/models?name=hostile&backend=unet",
        )
    )
    return _wrong_http(f"POST {path}", *world.ask("POST", path, content=data))


def _as_zip(world: World, number: random.Random, data: bytes) -> str:
    ending = number.choice((".tif", ".png", ".jpg", ".npy", ".json", ".geojson", ".roi", ".zip"))
    pair = number.choice(((data, LABEL_FILE), (IMAGE_FILE, data)))
    members = {f"train/images/a{ending}": pair[0], f"train/masks/a{ending}": pair[1]}
    return _wrong_http("POST zip", *world.ask("POST", "/api/v1/datasets?name=hostile", content=zipped(members)))


def _as_qupath(world: World, number: random.Random, data: bytes) -> str:
    picture = base64.b64encode(data).decode()
    path = number.choice(("/sam/", "/sam/automask/", "/elephant/"))
    body = {"modelname": "default", "b64img": picture, "eval": True, "point_coords": [[5, 5]], "point_labels": [1]}
    return _wrong_http(f"POST {path}", *world.ask("POST", path, content=json.dumps(body)))


_SENDERS = (
    _as_dataset,
    _as_dataset,
    _as_project_image,
    _as_labels,
    _as_labels,
    _as_prediction,
    _as_direct_prediction,
    _as_sparsify,
    _as_suggestion,
    _as_body,
    _as_zip,
    _as_qupath,
)
_KINDS = {"call": _call, "web": _web, "file": _file}


def _chunks(request: Callable[..., Message], data: bytes) -> Iterator[Message]:
    for begin in range(0, len(data), 2**20):
        yield request(chunk=data[begin : begin + 2**20])


def _stream(world: World, method: str, messages: Iterable[Message], server: str = "orchestrator") -> str:
    wire = [message.SerializeToString() for message in messages]
    return _wrong(method, *world.call(server, f"/cellsparse.v1.{method}", wire))


def _wrong(what: str, status: str, sentence: str) -> str:
    if status == "OK" or (status not in BROKEN and sentence.rstrip().endswith((".", "...")) and "died" not in sentence):
        return ""
    return f"{what} answered {status}: {sentence[:500]}"


def _wrong_http(what: str, status: int, text: str) -> str:
    if status in (500, 502) or (status >= 500 and "died" in text):
        return f"{what} answered {status}: {text[:500]}"
    return ""
