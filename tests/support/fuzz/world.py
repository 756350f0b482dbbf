"""Live servers to attack: an orchestrator with its sparsifier and a U-Net trainer, a gateway, and what they hold."""

import io
import sqlite3
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import httpx
from support.fuzz.files import IMAGE_FILE, LABEL_FILE
from support.fuzz.watch import number_of, open_files
from support.gateway import Gateway
from support.limits import PATIENCE
from support.model_imports import import_messages
from support.orchestrator import Orchestrator, tiny_items, until

from cellsparse_common.rpc.channel import open_channel
from cellsparse_common.storage import keys
from cellsparse_common.storage.folder import UNFINISHED
from cellsparse_orchestrator import run_states
from cellsparse_orchestrator.studies import states as study_states
from cellsparse_proto.v1 import common_pb2, orchestrator_pb2, project_pb2, study_pb2, trainer_pb2

MOST_ANSWERS = 30
"""Messages of a stream that are read before it is left."""
WATCH_SECONDS = 1.0
"""How long calls that watch are listened to."""
MORE_THREADS, MORE_FILES = 160, 60
"""By how much a server's threads and open files may grow: it has threads for 128 calls at once, and keeps them."""


class World:
    """`with World(home) as world:` gives servers that answer, and a thing of each kind in them.

    Attributes:
        ids: Ids of these things by the name of the request's field.
        doomed: Ids of others, for calls that delete or limit something.
        addresses: host:port of each gRPC server.
        pids: Process id of each server.
        description: The gateway's, of its routes.
        model_files: Valid files of models by name.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        self.model_files: dict[str, bytes] = {"state": _state_file()}
        self._temporary = home / "temporary"
        self._open = ExitStack()

    def __enter__(self) -> "World":
        self._temporary.mkdir(parents=True)
        try:
            self._start()
            self.ids, self.doomed = self._things("kept"), self._things("doomed")
            self.tidy()
        except BaseException:
            self._open.close()
            raise
        self._idle = self._taken()
        return self

    def __exit__(self, *details: Any) -> None:
        self._open.__exit__(*details)

    def call(self, server: str, path: str, messages: Sequence[bytes], seconds: float = PATIENCE) -> tuple[str, str]:
        """Make a call of any kind with messages as they go over the wire.

        Args:
            server: A key of `addresses`.
            path: /service/method.
            messages: The serialized messages.
            seconds: The client's deadline.

        Returns:
            Name of the status, and the sentence.
        """
        answers = self._channels[server].stream_stream(path, None, None)(iter(messages), timeout=seconds)
        try:
            for count, _ in enumerate(answers, start=1):
                if count >= MOST_ANSWERS:
                    answers.cancel()
                    break
        except grpc.RpcError as error:
            return error.code().name, error.details() or ""
        return "OK", ""

    def ask(self, method: str, path: str, **request: Any) -> tuple[int, str]:
        """Make an HTTP request; return its status and the beginning of its body."""
        with self._http.stream(method, path, **request) as answer:
            if answer.headers.get("content-type", "").startswith("text/event-stream"):
                return answer.status_code, ""
            size, text = 0, b""
            for part in answer.iter_bytes():
                size += len(part)
                text += part if len(text) < 2000 else b""
            return answer.status_code, text[:2000].decode(errors="replace")

    def tidy(self) -> None:
        """Cancel all runs and studies that go on, and wait for their ends."""
        orchestrator = self.orchestrator
        page = common_pb2.PageRequest(page_size=1000)
        studies = orchestrator.studies.ListStudies(study_pb2.ListStudiesRequest(page=page), timeout=PATIENCE).studies
        for study in studies:
            if study.state not in study_states.FINAL:
                _try(orchestrator.studies.CancelStudy, study_pb2.CancelStudyRequest(study_id=study.id))
        for run in self._unfinished():
            _try(orchestrator.runs.CancelRun, orchestrator_pb2.CancelRunRequest(run_id=run.id))

    def wait_for_rest(self) -> None:
        """Wait until nothing trains any more."""
        self.tidy()
        until(lambda: not self._unfinished())

    def predict(self) -> None:
        """Predict with the kept model; raises if that does not work."""
        ask = trainer_pb2.PredictRequest(model_id=self.ids["model_id"][0], image=IMAGE_FILE)
        self.orchestrator.runs.Predict(ask, timeout=PATIENCE)

    def complaints(self) -> list[str]:
        """Return what is wrong with the servers now: dead, other ones, tracebacks in logs, and what was left behind."""
        found = [f"{name} (process {pid}) is gone" for name, pid in self.pids.items() if not number_of(pid, "VmRSS")]
        if found:
            return found
        self.wait_for_rest()
        self.predict()
        ill = [name for name in ("sparsifier", "unet") if not self.orchestrator.service(name).healthy]
        found = [f"{name} is not healthy" for name in ill]
        for log in sorted(self.home.rglob("*.log*")):
            lines = log.read_text(errors="replace").splitlines()
            wrong = [at for at, line in enumerate(lines) if "Traceback (most" in line or '"level": "ERROR"' in line]
            found += [f"{log.name}: {' / '.join(lines[at : at + 30])[-1500:]}" for at in wrong[:3]]
        return found + self._leftovers()

    def _leftovers(self) -> list[str]:
        folders = {
            "temporary files": self._temporary,
            "half uploads": self.home / "uploads",
            "half objects": self.orchestrator.store / UNFINISHED,
            "model files to import": self.orchestrator.store / keys.upload("m").rpartition("/")[0],
            "images to predict": self.orchestrator.store / keys.transfer("t", "image").split("/")[0],
            "half exports": self.home / "work" / "unet" / "exports",
            "half imports": self.home / "work" / "unet" / "imports",
        }
        end = time.monotonic() + PATIENCE
        while any(_files(folder) for folder in folders.values()) and time.monotonic() < end:
            time.sleep(0.2)  # what a cancelled call had begun ends a moment later
        found = [f"{what}: {left[:5]}" for what, folder in folders.items() if (left := _files(folder))]
        for name, (threads, files) in self._taken().items():
            more_threads, more_files = threads - self._idle[name][0], files - self._idle[name][1]
            if more_threads > MORE_THREADS or more_files > MORE_FILES:
                found.append(f"{name} has {more_threads} more threads and {more_files} more open files")
        return found + self._half_rows()

    def _half_rows(self) -> list[str]:
        """Return rows that refer to nothing, or whose objects are not in the store."""
        store = self.orchestrator.store
        with sqlite3.connect(f"file:{self.home / 'cellsparse.db'}?mode=ro", uri=True) as connection:
            found = [f"database: {row}" for row in connection.execute("PRAGMA foreign_key_check")]
            found += [f"database: {row[0]}" for row in connection.execute("PRAGMA integrity_check") if row[0] != "ok"]
            for (name,) in connection.execute("SELECT id FROM datasets"):
                if not (store / keys.dataset_manifest(name)).is_file():
                    found.append(f"dataset {name} has no manifest")
            for (name,) in connection.execute("SELECT id FROM models"):
                if not any((store / keys.model_prefix(name)).rglob("*")):
                    found.append(f"model {name} has no files")
            for project, image in connection.execute("SELECT project_id, id FROM project_images"):
                if not any((store / keys.project_image_prefix(project, image)).rglob("*")):
                    found.append(f"image {image} has no tiles")
        return found

    def _taken(self) -> dict[str, tuple[int, int]]:
        return {name: (number_of(pid, "Threads"), open_files(pid)) for name, pid in self.pids.items()}

    def _unfinished(self) -> list[orchestrator_pb2.Run]:
        states = [state for state in common_pb2.RunState.values() if state not in run_states.FINAL and state]
        ask = orchestrator_pb2.ListRunsRequest(page=common_pb2.PageRequest(page_size=1000), states=states)
        return list(self.orchestrator.runs.ListRuns(ask, timeout=PATIENCE).runs)

    def _start(self) -> None:
        # PyTorch's cache would lie among the temporary files, which must not stay.
        common = {"TMPDIR": str(self._temporary), "TORCHINDUCTOR_CACHE_DIR": str(self.home / "torch-cache")}
        trainers = {"CELLSPARSE_TRAINER_MODULES": "unet=cellsparse_unet"}
        self.orchestrator = self._open.enter_context(Orchestrator(self.home, **trainers, **common))
        gateway = self._open.enter_context(Gateway(self.home, CELLSPARSE_QUPATH_SECONDS="1", **common))
        self._http = self._open.enter_context(httpx.Client(base_url=gateway.url, timeout=PATIENCE))
        services = {"sparsifier": self.orchestrator.healthy("sparsifier"), "trainer": self.orchestrator.healthy("unet")}
        found = {name: service.address for name, service in services.items()}
        self.addresses = {"orchestrator": self.orchestrator.address, **found}
        self.pids = {name: service.pid for name, service in services.items()}
        self.pids |= {"orchestrator": self.orchestrator.pid, "gateway": gateway.pid}
        self._channels = {
            name: self._open.enter_context(open_channel(address)) for name, address in self.addresses.items()
        }
        self.description = self._http.get("/api/v1/openapi.json").raise_for_status().json()

    def _things(self, name: str) -> dict[str, list[str]]:
        """Make a thing of each kind."""
        server = self.orchestrator
        dataset = server.upload(tiny_items(3, 32), name).id
        messages = import_messages(self.model_files["state"], "unet", name=name)
        model = server.runs.ImportModel(messages, timeout=PATIENCE).model.id
        export = trainer_pb2.ExportRequest(model_id=model, format=trainer_pb2.EXPORT_FORMAT_NATIVE)
        parts = server.runs.Export(export, timeout=PATIENCE)
        self.model_files["native"] = b"".join(part.chunk for part in parts)
        project = self._post("/api/v1/projects", json={"name": name})["id"]
        image = self._post(f"/api/v1/projects/{project}/images", params={"name": "image"}, content=IMAGE_FILE)["id"]
        self._post(f"/api/v1/images/{image}/labels", content=LABEL_FILE)
        predict = project_pb2.PredictLayerRequest(image_id=image, model_id=model)
        layer = server.projects.PredictLayer(predict, timeout=PATIENCE).layer.id
        run = server.train(dataset, steps=1).id
        study = server.begin_study(dataset, grid=study_pb2.StudyGrid(backends=["unet"])).id
        one = {"dataset_id": dataset, "model_id": model, "project_id": project, "image_id": image, "layer_id": layer}
        one |= {"run_id": run, "study_id": study, "initial_model": model, "item": "item0", "backend": "unet"}
        return {field: [value] for field, value in one.items()}

    def _post(self, path: str, **request: Any) -> Any:
        return self._http.post(path, **request).raise_for_status().json()


def _try(call: Any, request: Any) -> None:
    try:
        call(request, timeout=PATIENCE)
    except grpc.RpcError as error:
        # It has just ended, or waits for something else to do so.
        if error.code() not in (grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.NOT_FOUND):
            raise


def _files(folder: Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in folder.rglob("*")] if folder.is_dir() else []


def _state_file() -> bytes:
    """Return a U-Net as PyTorch writes it: random weights."""
    import torch  # takes seconds, and tests are collected without it

    from cellsparse_unet.config import resolve
    from cellsparse_unet.network import build_network

    config = resolve(trainer_pb2.TrainingSettings(unet=trainer_pb2.UnetSettings(base_channels=4)), 1)
    file = io.BytesIO()
    torch.save([build_network(config).state_dict()], file)
    return file.getvalue()
