"""From a job to a training that can begin: data, device, weights and checkpoints."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cellsparse_common.storage import ObjectStore, open_store
from cellsparse_proto.v1 import dataset_pb2
from cellsparse_trainer.config import device, precision
from cellsparse_trainer.config.plan import Plan
from cellsparse_trainer.config.settings import ProcessSettings
from cellsparse_trainer.config.time_budget import step_seconds_allowed
from cellsparse_trainer.contract import Backend, BackendSpec, C, HalfPrecisionBackend, Training, with_plan
from cellsparse_trainer.data.copy_paste import augmented
from cellsparse_trainer.data.patient_store import Outage, PatientStore
from cellsparse_trainer.data.prefetch import default_workers
from cellsparse_trainer.data.samples import Sample, StoredSamples, check_items
from cellsparse_trainer.data.stacks import PlaneSamples
from cellsparse_trainer.data.training_tiles import TileSamples, is_large, training_tiles
from cellsparse_trainer.distributed.heartbeat import Coordinator, Worker
from cellsparse_trainer.distributed.ranks import Ranks
from cellsparse_trainer.models.store import fetch_model
from cellsparse_trainer.processes.job import Job
from cellsparse_trainer.training.channel_choice import describe_channels
from cellsparse_trainer.training.checkpoints import Checkpoints
from cellsparse_trainer.training.feeding import feeding
from cellsparse_trainer.training.number_format import settle
from cellsparse_trainer.training.reporter import Reporter
from cellsparse_trainer.training.resume_guard import origin
from cellsparse_trainer.training.timing import Trial, choose

Peers = Coordinator | Worker | None
"""The connection between the processes that train one model; None where there is one."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A training that can begin."""

    job: Job
    """The attempt."""
    plan: Plan
    """Steps and intervals."""
    versions: dict[str, str]
    """Versions of the packages that matter, by name."""
    store: ObjectStore
    """Holds the dataset, and takes checkpoints and the model."""
    train: Sequence[Sample]
    """Training items."""
    validation: Sequence[Sample]
    """Items that choose the best checkpoint; not empty."""
    training: Training
    """The backend's training, before its first step."""
    checkpoints: Checkpoints
    """The run's checkpoints."""
    workers: int
    """Processes that make batches ahead of the network; 0: there are none."""
    no_step_after: float | None
    """Time, by `time.monotonic`, from which on no further step is taken; None: the plan's steps decide."""

    @property
    def initial_model(self) -> str:
        """Id of the model that the training starts from; empty: fresh weights."""
        return str(self.job.request.settings.initial_model)


def prepare(
    job: Job,
    spec: BackendSpec[C],
    config: C,
    ranks: Ranks,
    reporter: Reporter,
    began: float,
    peers: Peers,
    stopped: Callable[[], bool],
) -> Prepared:
    """Load the framework, check device and data, choose the steps, and build the training.

    Args:
        job: The attempt.
        spec: The job's backend.
        config: The job's configuration.
        ranks: This process among those that train together.
        reporter: Gets the run's size, its device, and lines for the log.
        began: When the attempt began, by `time.monotonic`.
        peers: The connection to the other ranks; None: there are none.
        stopped: Whether the process is to end, and so does not wait for a store that is away.

    Raises:
        InvalidArgument: The device is missing or lacks the number format, or the data cannot be trained on.
        StorageError: The store failed, or an item in it is damaged.
    """
    plan = config.plan
    backend = spec.framework()
    settings = ProcessSettings()
    outage = Outage(reporter.say, stopped, settings.outage_seconds)
    store = PatientStore(open_store(settings), outage)
    store.expect()  # it holds the dataset
    reporter.total_steps = plan.steps
    versions, found = backend.versions(), backend.devices()
    listed = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
    reporter.log(f"{spec.name} on {', '.join(found)}: {listed}")
    reporter.device = device.choose(plan.device, found)  # refused before any image is read
    device.check_switches(plan, reporter.device)
    scratch = job.folder if ranks.leads else job.folder / f"rank-{ranks.rank}"
    run_id = job.request.run_id
    checkpoints = Checkpoints(
        store,
        run_id,
        scratch / "checkpoints",
        origin(job.request),
        feeding(spec.name, plan, job.inputs.train),
        keep_bytes=settings.keep_mib * 2**20,
        writer=(job.request.attempt, job.request.fence),
    )
    capable = _computes_in_bfloat16(backend, plan)
    settled = settle(plan, reporter.device, store, checkpoints, run_id, capable=capable, peers=peers)
    reporter.log(settled.sentence)
    config = with_plan(config, settled.plan)
    plan = config.plan
    workers = default_workers(found, plan.device) if plan.num_workers is None else plan.num_workers
    cache_bytes = settings.cache_mib * 2**20
    train, validation = _open_samples(job, plan, store, workers, cache_bytes)
    kept = _share(job, plan, workers, cache_bytes)
    if job.inputs.train_planes is not None:
        stacks = len(job.inputs.train)
        reporter.log(f"{spec.name} trains on the {len(train)} planes with labelled pixels of {stacks} stacks.")
    if said := describe_channels(plan, [*job.inputs.train, *job.inputs.validation]):
        reporter.log(said)
    if not job.inputs.validation:
        reporter.log("No VAL item of the dataset has a labelled cell: training items choose the best checkpoint.")
    initial = job.request.settings.initial_model
    start = fetch_model(store, initial, scratch / "start")[0] if initial else None

    def create(items: Sequence[Sample]) -> Training:
        return backend.create(config, augmented(items, plan, kept), plan.device, start, ranks)

    trial = Trial(create=create, workers=workers, train=train, validation=validation, began=began)
    choice = choose(plan, job.request.settings, store, run_id, trial, peers)
    plan = choice.plan
    config = with_plan(config, plan)
    reporter.total_steps = plan.steps
    if ranks.world < plan.world:
        each = -(-plan.crops_per_step // ranks.world)
        reporter.log(
            f"{ranks.world} of {plan.world} processes train: each makes up to {each} crops of a step instead of "
            f"{plan.batch_size}."
        )
    allowed = step_seconds_allowed(plan, choice.finishing)
    return Prepared(
        job=job,
        plan=plan,
        versions=versions,
        store=store,
        train=train,
        validation=validation,
        training=create(train),
        checkpoints=checkpoints,
        workers=workers,
        no_step_after=None if allowed is None else began + allowed,
    )


def _computes_in_bfloat16(backend: Backend[C], plan: Plan) -> bool | None:
    """Return whether the device does; None where the backend does not, or nobody wants to know."""
    if plan.precision == precision.FLOAT32 or not isinstance(backend, HalfPrecisionBackend):
        return None
    if plan.precision == precision.AUTO:
        return backend.gains_from_bfloat16(plan.device)
    return backend.has_bfloat16(plan.device)


def count_cells(items: Sequence[dataset_pb2.DatasetItem]) -> int:
    """Return the number of labelled cells of some items."""
    return sum(item.cells for item in items)


def _share(job: Job, plan: Plan, workers: int, cache_bytes: int) -> int:
    """Return the part of the cache for training items, and for what is made of them: planes, items with copies."""
    kinds = 1 + (job.inputs.train_planes is not None) + (plan.copy_paste > 0)
    return cache_bytes // (workers + 1) // kinds


def _open_samples(
    job: Job, plan: Plan, store: ObjectStore, workers: int, cache_bytes: int
) -> tuple[Sequence[Sample], Sequence[Sample]]:
    """Return training items, whole, as tiles or as planes, and validation items, after reading each of them once."""
    inputs = job.inputs
    share = _share(job, plan, workers, cache_bytes)
    train = StoredSamples(store, inputs.train, plan, cache_bytes=share)
    validation = StoredSamples(store, inputs.validation, plan, cache_bytes=cache_bytes)
    check_items(train, inputs.train)
    check_items(validation, inputs.validation)
    if inputs.train_planes is None:
        if not any(map(is_large, inputs.train)):
            return train, validation or train
        return TileSamples(train, training_tiles(train, inputs.train), cache_bytes=share), validation or train
    shown = PlaneSamples(validation or train, inputs.validation_planes)
    return PlaneSamples(train, inputs.train_planes, cache_bytes=share), shown
