"""The training process: `python -m cellsparse_trainer.training.worker JOB`, started by the server for one attempt.

It reads its `Job` from a file and writes `TrainingEvent`s as JSON lines to standard output. Whatever else is printed
goes to standard error. When standard input closes, the server is gone: the process ends at once, so that no orphan
writes beside the next attempt. On SIGTERM it writes a checkpoint and ends with code 0.

Where several processes train one model, each is such a worker and finds its rank in the environment (see `ranks`).
Rank 0 does what a single process does; the others only train beside it, and say so if they fail.
"""

import contextlib
import importlib
import logging
import os
import platform
import resource
import shutil
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn, TextIO, cast

from google.protobuf import json_format

from cellsparse_common.datasets import read_manifest
from cellsparse_common.errors import CellsparseError
from cellsparse_common.logs import configure_logging, log_context
from cellsparse_common.storage import open_store
from cellsparse_proto.v1 import common_pb2, trainer_pb2
from cellsparse_trainer.config import precision
from cellsparse_trainer.config.device import choose
from cellsparse_trainer.config.plan import Plan
from cellsparse_trainer.config.settings import ProcessSettings
from cellsparse_trainer.contract import Backend, Training
from cellsparse_trainer.data.prefetch import Prefetch, default_workers
from cellsparse_trainer.data.samples import Sample, StoredSamples, check_items, labelled_items, trainable_items
from cellsparse_trainer.data.stacks import PlaneSamples, common_spacing, find_axes, labelled_planes, resolve, spread
from cellsparse_trainer.distributed.heartbeat import Follower, Leader, Lost
from cellsparse_trainer.distributed.ranks import ALONE, Ranks, find_ranks
from cellsparse_trainer.models.store import fetch_model, publish_model
from cellsparse_trainer.processes.failures import explain, explain_of_several
from cellsparse_trainer.processes.job import Job
from cellsparse_trainer.training import loop
from cellsparse_trainer.training.checkpoints import Checkpoints
from cellsparse_trainer.training.initial_model import follow_start, start_validation, verdict
from cellsparse_trainer.training.resume_guard import origin
from cellsparse_trainer.training.scoring import MAX_SAMPLES

_LOG = logging.getLogger(__name__)
ORPHANED = 75
DESERTED = 76
"""Exit code of a process that ended because another of its training was lost."""


class Reporter:
    """Writes events to the server.

    Args:
        out: Where to.
        leads: Whether this is rank 0; of the others only the first on a node says that it began and ended.
    """

    def __init__(self, out: TextIO, *, leads: bool = True) -> None:
        self._out = out
        self._leads = leads
        self._lock = threading.Lock()
        self.state = common_pb2.RUN_STATE_STARTING
        self.total_steps = 0
        self.device = ""

    def send(self, **fields: Any) -> None:
        """Send one event with the current state; ranks above 0 send nothing but what changes their node's state."""
        if not self._leads and self.state == common_pb2.RUN_STATE_STARTING:
            return
        event = trainer_pb2.TrainingEvent(
            state=self.state,
            total_steps=self.total_steps,
            peak_memory_mib=peak_memory_mib(),
            device=self.device,
            **fields,
        )
        with self._lock:
            # In one piece, since all processes of a training write to the same pipe.
            self._out.write(json_format.MessageToJson(event, indent=None) + "\n")
            self._out.flush()

    def lost(self, sentence: str) -> NoReturn:
        """Report that another process of this training is lost, and end this one."""
        _LOG.error("ended: %s", sentence)
        self.state = common_pb2.RUN_STATE_FAILED
        self.send(reason=common_pb2.FAILURE_REASON_LOST, message=sentence)
        os._exit(DESERTED)

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


def train(job: Job, reporter: Reporter, stop: threading.Event, ranks: Ranks = ALONE) -> bool:
    """Do one attempt, report how it ended, and return whether it failed."""
    plan: Plan | None = None
    crew: Leader | Follower | None = None
    try:
        crew = join(job, ranks, reporter.lost)
        backend = cast(Backend, importlib.import_module(job.module))
        settings = ProcessSettings()
        store = open_store(settings)
        manifest = read_manifest(store, job.request.dataset_id)
        items = trainable_items(manifest)
        axes = find_axes(manifest)
        config = resolve(backend, job.request.settings, len(items), axes)
        planes = labelled_planes(store, items) if axes == "ZYX" and config.plan.crop_depth is None else None
        if planes is not None:
            config = resolve(backend, job.request.settings, len(planes), axes)
        config = follow_start(config, job.request.settings, store, backend.adopt)
        plan = cast(Plan, config.plan)
        reporter.total_steps = plan.steps
        versions = backend.versions()
        devices = backend.devices()
        reporter.log(f"{backend.NAME} on {', '.join(devices)}: {_listed(versions)}")
        reporter.device = choose(plan.device, devices)  # refused before any image is read
        precision.choose(plan.precision, reporter.device, capable=True)  # a CPU refuses some
        validating = labelled_items(manifest, common_pb2.SPLIT_VAL)
        check_items(store, [*items, *validating], plan)
        workers = default_workers(devices, plan.device) if plan.num_workers is None else plan.num_workers
        cache_bytes = settings.cache_mib * 2**20
        share = cache_bytes // (workers + 1) // (1 if planes is None else 2)  # planes are kept besides their stacks
        samples: Sequence[Sample] = StoredSamples(store, items, plan, cache_bytes=share)
        validation: Sequence[Sample] = StoredSamples(store, validating, plan, cache_bytes=cache_bytes)
        if planes is not None:
            reporter.log(
                f"{backend.NAME} trains on the {len(planes)} planes with labelled pixels of {len(items)} stacks."
            )
            shown = labelled_planes(store, validating) or planes
            validation = PlaneSamples(validation or samples, spread(shown, MAX_SAMPLES))
            samples = PlaneSamples(samples, planes, cache_bytes=share)
        if not validating:
            reporter.log("The dataset has no labelled VAL item: training items choose the best checkpoint.")
        initial = job.request.settings.initial_model
        scratch = job.folder if ranks.leads else job.folder / f"rank-{ranks.rank}"
        folder = fetch_model(store, initial, scratch / "start")[0] if initial else None
        training = backend.create(config, samples, plan.device, folder, ranks)
        checkpoints = Checkpoints(store, job.request.run_id, scratch / "checkpoints", origin(job.request))
        reporter.state = common_pb2.RUN_STATE_RUNNING
        if isinstance(crew, Follower):
            if ranks.local_rank == 0:
                reporter.send()
            with ahead(training, workers, plan.steps):
                steps = loop.follow(training, checkpoints, crew)
            reporter.state = common_pb2.RUN_STATE_SUCCEEDED
            if ranks.local_rank == 0:
                reporter.send(step=steps)
            return False
        cells = sum(item.cells for item in items)
        reporter.log(f"Training on {len(items)} items with {cells} labelled cells for {plan.steps} steps.")
        chosen = validation or samples
        start: dict[str, float] = {}
        if initial:
            start = start_validation(store, job.request.run_id, training.model(), chosen)
            reporter.log(f"The start, model {initial}, scores {start['score']:.3f} on validation.")
        setup = loop.Setup(
            training=training,
            plan=plan,
            items=len(samples),
            validation=chosen,
            checkpoints=checkpoints,
            start=start,
            crew=crew,
        )
        with ahead(training, workers, plan.steps):
            outcome = loop.run(setup, reporter.progress, stop.is_set)
        if not outcome.finished:
            return False
        folder = job.folder / "model"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        loop.finish(training.model(), chosen, folder)
        about = card(job, config, outcome, versions, start) | {"spacing": common_spacing(items)}
        publish_model(store, job.request.run_id, folder, about)
        if outcome.steps < plan.steps:
            reporter.log(
                f"Ended early after {outcome.steps} of {plan.steps} steps: "
                f"{plan.patience} validations in a row brought no better score."
            )
        reporter.log(f"The model of step {outcome.step} is stored.")
        reporter.state = common_pb2.RUN_STATE_SUCCEEDED
        reporter.send(
            step=outcome.steps,
            validation=outcome.validation,
            start_validation=start,
            model_step=outcome.step,
            message=verdict(outcome.step, outcome.validation["score"], start["score"]) if start else "",
        )
        return False
    except Exception as error:  # noqa: BLE001 - whatever ended it becomes the final event
        _LOG.exception("the attempt failed")
        reason, sentence = explain(error, plan) if ranks.alone else explain_of_several(error, plan, ranks)
        reporter.state = common_pb2.RUN_STATE_FAILED
        reporter.send(reason=reason, message=sentence)
        return True
    finally:
        if crew is not None:
            crew.close()


def join(job: Job, ranks: Ranks, lost: Lost) -> Leader | Follower | None:
    """Meet the other processes of this training; None if there are none.

    Raises:
        Unavailable: Not all were there in time.
    """
    if ranks.alone:
        return None
    host, _, port = job.crew.rpartition(":")
    word = f"{job.request.run_id}/{job.request.attempt}"
    if not ranks.leads:
        return Follower(host, int(port), rank=ranks.rank, word=word, lost=lost, seconds=job.start_seconds)
    leader = Leader(host, int(port), world=ranks.world, word=word, lost=lost)
    try:
        leader.gather(job.start_seconds)
    except CellsparseError:
        leader.close()
        raise
    return leader


@contextlib.contextmanager
def ahead(training: Training, workers: int, steps: int) -> Iterator[None]:
    """Have a training's batches made by processes, if any."""
    if workers == 0:
        yield
        return
    sampler = training.batches
    prefetch = Prefetch(sampler, workers=workers, steps=steps)
    training.batches = prefetch
    try:
        yield
    finally:
        training.batches = sampler
        prefetch.close()


def card(
    job: Job, config: Any, outcome: loop.Outcome, versions: dict[str, str], start: dict[str, float]
) -> dict[str, Any]:
    """Return the card that says what a model is and how to feed it."""
    plan = config.plan
    return {
        "version": 1,
        "backend": job.request.settings.WhichOneof("backend"),
        "run_id": job.request.run_id,
        "dataset_id": job.request.dataset_id,
        "step": outcome.step,
        "axes": "YX" if plan.crop_depth is None else "ZYX",
        "validation": outcome.validation,
        "initial_model": job.request.settings.initial_model,
        "start_validation": start,
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
    """Run the attempt that the file named by the argument describes."""
    # Frameworks print to standard output; the events keep the real one for themselves.
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    job, ranks = Job.read(Path(sys.argv[1])), find_ranks()
    configure_logging(f"{job.module}-worker")
    threading.Thread(target=_end_with_server, args=(sys.stdin.fileno(),), daemon=True).start()
    with log_context(run_id=job.request.run_id):
        failed = train(job, Reporter(out, leads=ranks.leads), stop, ranks)
    if failed and not ranks.alone:
        sys.exit(1)  # so that the launcher ends the others


if __name__ == "__main__":
    main()
