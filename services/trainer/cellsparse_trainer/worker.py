"""The training process: `python -m cellsparse_trainer.worker`, started by the trainer's server for one attempt.

It reads its `Job` from standard input and writes `TrainingEvent`s as JSON lines to standard output. Whatever else is
printed goes to standard error. When standard input closes, the server is gone: the process ends at once, so that no
orphan writes beside the next attempt. On SIGTERM it writes a checkpoint and ends with code 0.
"""

import importlib
import logging
import os
import platform
import resource
import shutil
import signal
import sys
import threading
from typing import Any, TextIO, cast

from google.protobuf import json_format

from cellsparse_common.datasets import read_manifest
from cellsparse_common.logs import configure_logging, log_context
from cellsparse_common.settings import StoreSettings
from cellsparse_common.storage import open_store
from cellsparse_proto.v1 import common_pb2, trainer_pb2
from cellsparse_trainer import loop
from cellsparse_trainer.backend import Backend
from cellsparse_trainer.checkpoints import Checkpoints
from cellsparse_trainer.failures import explain
from cellsparse_trainer.job import Job
from cellsparse_trainer.model_store import publish_model
from cellsparse_trainer.plan import Plan
from cellsparse_trainer.samples import StoredSamples, labelled_items, trainable_items

_LOG = logging.getLogger(__name__)
ORPHANED = 75


class Reporter:
    """Writes events to the server."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._lock = threading.Lock()
        self.state = common_pb2.RUN_STATE_STARTING
        self.total_steps = 0

    def send(self, **fields: Any) -> None:
        """Send one event with the current state."""
        event = trainer_pb2.TrainingEvent(
            state=self.state, total_steps=self.total_steps, peak_memory_mib=peak_memory_mib(), **fields
        )
        with self._lock:
            self._out.write(json_format.MessageToJson(event, indent=None) + "\n")
            self._out.flush()

    def progress(self, progress: loop.Progress) -> None:
        """Send what the loop reports."""
        self.send(
            step=progress.step,
            epoch=progress.epoch,
            losses=progress.losses,
            validation=progress.validation,
            images_per_second=progress.images_per_second,
            eta_seconds=progress.eta_seconds,
            checkpoint_step=progress.checkpoint_step,
        )

    def log(self, line: str) -> None:
        """Send a line of the log."""
        _LOG.info(line)
        self.send(log_lines=[line])


def peak_memory_mib() -> float:
    """Return the largest resident memory of this process so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def train(job: Job, reporter: Reporter, stop: threading.Event) -> None:
    """Do one attempt and report how it ended."""
    plan: Plan | None = None
    try:
        backend = cast(Backend, importlib.import_module(job.module))
        store = open_store(StoreSettings())
        manifest = read_manifest(store, job.request.dataset_id)
        items = trainable_items(manifest)
        config = backend.resolve(job.request.settings, len(items))
        plan = cast(Plan, config.plan)
        reporter.total_steps = plan.steps
        versions = backend.versions()
        reporter.log(f"{backend.NAME} on {', '.join(backend.devices())}: {_listed(versions)}")
        samples = StoredSamples(store, items, plan)
        validation = StoredSamples(store, labelled_items(manifest, common_pb2.SPLIT_VAL), plan)
        if not validation:
            reporter.log("The dataset has no labelled VAL item: training items choose the best checkpoint.")
        training = backend.create(config, samples, plan.device)
        checkpoints = Checkpoints(store, job.request.run_id, job.folder / "checkpoints")
        reporter.state = common_pb2.RUN_STATE_RUNNING
        cells = sum(item.cells for item in items)
        reporter.log(f"Training on {len(items)} items with {cells} labelled cells for {plan.steps} steps.")
        chosen = validation or samples
        setup = loop.Setup(training=training, plan=plan, items=len(items), validation=chosen, checkpoints=checkpoints)
        outcome = loop.run(setup, reporter.progress, stop.is_set)
        if not outcome.finished:
            return
        folder = job.folder / "model"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        loop.finish(training.model(), chosen, folder)
        publish_model(store, job.request.run_id, folder, card(job, config, outcome, versions))
        reporter.log(f"The model of step {outcome.step} is stored.")
        reporter.state = common_pb2.RUN_STATE_SUCCEEDED
        reporter.send(step=plan.steps, validation=outcome.validation)
    except Exception as error:  # noqa: BLE001 - whatever ended it becomes the final event
        _LOG.exception("the attempt failed")
        reason, sentence = explain(error, plan)
        reporter.state = common_pb2.RUN_STATE_FAILED
        reporter.send(reason=reason, message=sentence)


def card(job: Job, config: Any, outcome: loop.Outcome, versions: dict[str, str]) -> dict[str, Any]:
    """Return the card that says what a model is and how to feed it."""
    plan = config.plan
    return {
        "version": 1,
        "backend": job.request.settings.WhichOneof("backend"),
        "run_id": job.request.run_id,
        "dataset_id": job.request.dataset_id,
        "step": outcome.step,
        "validation": outcome.validation,
        "preprocessing": {
            "channel": plan.channel,
            "lower_percentile": plan.lower_percentile,
            "upper_percentile": plan.upper_percentile,
        },
        "settings": json_format.MessageToDict(job.request.settings),
        "versions": {**versions, "python": platform.python_version()},
    }


def _listed(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))


def _end_with_server(stdin: int) -> None:
    # The bare descriptor: a thread that holds the buffered reader's lock makes the interpreter's end a crash.
    while os.read(stdin, 4096):
        pass
    os._exit(ORPHANED)


def main() -> None:
    """Run the attempt that standard input describes."""
    # Frameworks print to standard output; the events keep the real one for themselves.
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    job = Job.from_line(sys.stdin.readline())
    configure_logging(f"{job.module}-worker")
    threading.Thread(target=_end_with_server, args=(sys.stdin.fileno(),), daemon=True).start()
    with log_context(run_id=job.request.run_id):
        train(job, Reporter(out), stop)


if __name__ == "__main__":
    main()
