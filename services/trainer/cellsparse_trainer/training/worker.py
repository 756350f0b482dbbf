"""The training process: `python -m cellsparse_trainer.training.worker JOB`, started by the server for one attempt.

It reads its `Job` from a file and writes `TrainingEvent`s as JSON lines to standard output. All other output goes to
standard error. When standard input closes, the server is gone: the process ends at once, so that no orphan writes
beside the next attempt. On SIGTERM it writes a checkpoint and ends with code 0.

Where several processes train one model, each is such a worker and finds its rank in the environment (see `ranks`).
Rank 0 leads: it validates, writes checkpoints and publishes, as a single process does. The others train beside it, and
report if they fail.
"""

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from cellsparse_common import tracing
from cellsparse_common.errors import CellsparseError, Damaged
from cellsparse_common.logs import configure_logging, log_context
from cellsparse_common.rpc.rules import weights_terms
from cellsparse_proto.v1 import common_pb2
from cellsparse_trainer.config.plan import Plan
from cellsparse_trainer.contract import find_backend
from cellsparse_trainer.data.samples import Sample
from cellsparse_trainer.distributed.heartbeat import Coordinator, Lost, Worker
from cellsparse_trainer.distributed.ranks import ALONE, Ranks, find_ranks
from cellsparse_trainer.processes.failures import explain, explain_of_several
from cellsparse_trainer.processes.job import Job
from cellsparse_trainer.processes.launch import SECRET
from cellsparse_trainer.processes.orphan import end_on_eof
from cellsparse_trainer.training import loop
from cellsparse_trainer.training.ahead import ahead
from cellsparse_trainer.training.initial_model import initial_validation, verdict
from cellsparse_trainer.training.prepare import Peers, Prepared, count_cells, prepare
from cellsparse_trainer.training.publish import publish
from cellsparse_trainer.training.reporter import Reporter
from cellsparse_trainer.training.validation import windows

_LOG = logging.getLogger(__name__)


def train(
    job: Job, reporter: Reporter, stop: threading.Event, ranks: Ranks = ALONE, began: float | None = None
) -> bool:
    """Do one attempt, report how it ended, and return whether it failed.

    Args:
        job: The attempt.
        reporter: Gets its events.
        stop: Ends it with a checkpoint.
        ranks: This process among those that train together.
        began: When it began, by `time.monotonic`; None: now.
    """
    plan: Plan | None = None
    peers: Peers = None
    began = time.monotonic() if began is None else began
    try:
        peers = join(job, ranks, reporter.lost)
        spec = find_backend(job.package)
        config = spec.light().Config.from_json(job.inputs.config)
        plan = config.plan
        with tracing.span("prepare"):
            prepared = prepare(job, spec, config, ranks, reporter, began, peers, stop.is_set)
        plan = prepared.plan
        reporter.state = common_pb2.RUN_STATE_RUNNING
        if isinstance(peers, Worker):
            follow(prepared, peers, reporter, first_on_node=ranks.local_rank == 0)
        else:
            lead(prepared, peers, reporter, stop.is_set, began)
        return False
    except Exception as error:  # noqa: BLE001 - whatever ended it becomes the final event
        _LOG.exception("the attempt failed")
        reason, message = explain(error, plan) if ranks.alone else explain_of_several(error, plan, ranks)
        reporter.failed(reason, message, damaged=isinstance(error, Damaged))
        return True
    finally:
        if peers is not None:
            peers.close()


def join(job: Job, ranks: Ranks, lost: Lost) -> Peers:
    """Meet the other processes of this training; None if there are none.

    Raises:
        Unavailable: Not all connected in time.
    """
    if ranks.alone:
        return None
    host, _, port = job.coordinator.rpartition(":")
    token = os.environ.pop(SECRET, "") or f"{job.request.run_id}/{job.request.attempt}"
    if not ranks.leads:
        return Worker(host, int(port), rank=ranks.rank, token=token, lost=lost, seconds=job.rendezvous_seconds)
    coordinator = Coordinator(host, int(port), world=ranks.world, token=token, lost=lost)
    try:
        coordinator.gather(job.rendezvous_seconds)
    except CellsparseError:
        coordinator.close()
        raise
    return coordinator


def follow(prepared: Prepared, worker: Worker, reporter: Reporter, *, first_on_node: bool) -> None:
    """Train beside rank 0, to the end that it chooses."""
    if first_on_node:
        reporter.send()
    with ahead(prepared.training, prepared.workers, prepared.plan.steps):
        steps = loop.follow(prepared.training, prepared.checkpoints, worker)
    reporter.state = common_pb2.RUN_STATE_SUCCEEDED
    if first_on_node:
        reporter.send(step=steps)


def lead(
    prepared: Prepared,
    coordinator: Coordinator | None,
    reporter: Reporter,
    stopped: Callable[[], bool],
    began: float,
) -> None:
    """Train from the newest checkpoint to the last step, validate, and publish the best model."""
    plan, items = prepared.plan, prepared.job.inputs.train
    cells = count_cells(items)
    reporter.log(f"Training on {len(items)} items with {cells} labelled cells for {plan.steps} steps.")
    if plan.budget:
        reporter.log(f"Budget: {plan.budget}")
    looked_at = windows(prepared.validation, plan)
    initial_scores = score_initial_model(prepared, looked_at, reporter)
    setup = loop.Setup(
        training=prepared.training,
        plan=plan,
        items=len(prepared.train),
        validation=looked_at,
        checkpoints=prepared.checkpoints,
        start=initial_scores,
        coordinator=coordinator,
        no_step_after=prepared.no_step_after,
    )
    before = time.monotonic() - began
    with tracing.span("steps"), ahead(prepared.training, prepared.workers, plan.steps):
        outcome = loop.run(setup, reporter.progress, stopped)
    if not outcome.finished:
        return
    prepared.checkpoints.confirm()
    with tracing.span("publish"):
        model_bytes = publish(prepared, outcome, initial_scores)
    if outcome.spent is not None:
        reporter.log(
            f"Of {time.monotonic() - began:.1f} s, {before:.1f} s passed before the first step, "
            f"{outcome.spent.steps:.1f} s in steps and {outcome.spent.validations:.1f} s in validations."
        )
    report_success(prepared, outcome, initial_scores, reporter, model_bytes)


def score_initial_model(prepared: Prepared, looked_at: Sequence[Sample], reporter: Reporter) -> dict[str, float]:
    """Return the validation scores of the initial model; empty without one."""
    if not prepared.initial_model:
        return {}
    run_id, model = prepared.job.request.run_id, prepared.training.model()
    scores = initial_validation(prepared.store, run_id, model, looked_at)
    reporter.log(f"The start, model {prepared.initial_model}, scores {scores['score']:.3f} on validation.")
    settings = prepared.job.request.settings
    if terms := weights_terms(settings.DESCRIPTOR.fields_by_name[str(settings.WhichOneof("backend"))]):
        reporter.log(terms)
    return scores


def report_success(
    prepared: Prepared, outcome: loop.Outcome, initial_scores: dict[str, float], reporter: Reporter, model_bytes: int
) -> None:
    """Send the final event of a training whose model is published."""
    plan = prepared.plan
    if outcome.late:
        reporter.log(f"Ended after {outcome.steps} of {plan.steps} steps: the {plan.minutes:g} minutes are over.")
    elif outcome.steps < plan.steps:
        reporter.log(
            f"Ended early after {outcome.steps} of {plan.steps} steps: "
            f"{plan.patience} validations in a row brought no better score."
        )
    reporter.log(f"The model of step {outcome.step} is stored.")
    message = ""
    if initial_scores:
        message = verdict(outcome.step, outcome.validation["score"], initial_scores["score"])
    reporter.state = common_pb2.RUN_STATE_SUCCEEDED
    reporter.send(
        step=outcome.steps,
        validation=outcome.validation,
        start_validation=initial_scores,
        model_step=outcome.step,
        model_bytes=model_bytes,
        message=message,
    )


def written(path: Path) -> float:
    """Return when a file was written, by `time.monotonic`: the server writes a job as it starts its process."""
    return time.monotonic() - max(0.0, time.time() - path.stat().st_mtime)


def recorded(job: Job) -> AbstractContextManager[tracing.Span]:
    """Record an attempt as part of the trace that the server hands over."""
    request = job.request
    attributes: tracing.Attributes = {"cellsparse.run_id": request.run_id, "cellsparse.attempt": request.attempt}
    parent = os.environ.get(tracing.ENVIRONMENT, "")
    return tracing.span("train", parent=parent, root=True, attributes=attributes)


def main() -> None:
    """Run the attempt that the file named by the argument describes."""
    # Frameworks print to standard output; the events keep the real one for themselves.
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    job, ranks = Job.read(Path(sys.argv[1])), find_ranks()
    configure_logging(f"{job.package}-worker")
    end_on_eof(sys.stdin.fileno())  # the server holds the other end
    if ranks.leads:
        tracing.start(f"{job.package}-worker")
    with log_context(run_id=job.request.run_id), recorded(job) as span:
        failed = train(job, Reporter(out, leads=ranks.leads), stop, ranks, written(Path(sys.argv[1])))
        if failed:
            span.fail("FAILED")
    tracing.stop()
    if failed and not ranks.alone:
        sys.exit(1)  # so that the others are ended, too


if __name__ == "__main__":
    main()
