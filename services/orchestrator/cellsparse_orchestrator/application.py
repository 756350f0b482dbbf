"""Assemble the orchestrator from its parts."""

import logging
import signal
import threading
from datetime import timedelta
from typing import TYPE_CHECKING

import grpc

from cellsparse_common.datasets import read_manifest
from cellsparse_common.errors import CellsparseError
from cellsparse_common.rpc.metrics import new_registry
from cellsparse_common.storage import open_checked_store
from cellsparse_orchestrator.access.changes import Changes
from cellsparse_orchestrator.access.gate import Gate
from cellsparse_orchestrator.access.oidc import Provider, Rules
from cellsparse_orchestrator.access.tokens import Tokens, new_secret
from cellsparse_orchestrator.api.access import AccessServicer
from cellsparse_orchestrator.api.admin import AdminServicer
from cellsparse_orchestrator.api.datasets import DatasetServicer
from cellsparse_orchestrator.api.projects import ProjectServicer
from cellsparse_orchestrator.api.prompters import PrompterServicer
from cellsparse_orchestrator.api.runs import OrchestratorServicer, Tables
from cellsparse_orchestrator.api.studies import StudyServicer
from cellsparse_orchestrator.api.uploads import UploadServicer, make_uploads
from cellsparse_orchestrator.catalogue.datasets import Datasets
from cellsparse_orchestrator.catalogue.deletion import Deletions
from cellsparse_orchestrator.catalogue.models import Models
from cellsparse_orchestrator.catalogue.quota_metrics import QuotaMetrics
from cellsparse_orchestrator.collection.collections import Collections, CollectionTimer
from cellsparse_orchestrator.db.session import Database
from cellsparse_orchestrator.home import home_token, tell_clients
from cellsparse_orchestrator.launchers.base import NOT_TRAINERS, Launcher
from cellsparse_orchestrator.launchers.local import LocalLauncher
from cellsparse_orchestrator.launchers.static import static_launcher
from cellsparse_orchestrator.launchers.wake_queue import WakeQueue
from cellsparse_orchestrator.leadership import Leadership
from cellsparse_orchestrator.notifier import RECONCILER, Notifier
from cellsparse_orchestrator.readiness import (
    ReadinessWatch,
    database_check,
    disk_check,
    reconciler_check,
    store_check,
)
from cellsparse_orchestrator.runs.attempt_watcher import Timeouts
from cellsparse_orchestrator.runs.metrics import RunCounts, RunMetrics, WaitingCalls, add_state_gauges
from cellsparse_orchestrator.runs.queries import Runs
from cellsparse_orchestrator.runs.reconciler import Limits, RunReconciler
from cellsparse_orchestrator.runs.rows import RunAttempt
from cellsparse_orchestrator.runs.spec import read_trace, write_spec
from cellsparse_orchestrator.runs.store_gate import StoreGate
from cellsparse_orchestrator.runs.strays import StrayWatch
from cellsparse_orchestrator.runs.trainer_calls import store_is_away
from cellsparse_orchestrator.runs.transitions import RunTransitions
from cellsparse_orchestrator.settings import OrchestratorSettings
from cellsparse_orchestrator.studies.actions import MemberActions
from cellsparse_orchestrator.studies.queries import Studies
from cellsparse_orchestrator.studies.reconciler import StudyReconciler
from cellsparse_orchestrator.studies.transitions import StudyTransitions
from cellsparse_proto.v1 import (
    access_pb2,
    access_pb2_grpc,
    admin_pb2,
    admin_pb2_grpc,
    dataset_pb2,
    dataset_pb2_grpc,
    orchestrator_pb2,
    orchestrator_pb2_grpc,
    project_pb2,
    project_pb2_grpc,
    prompter_pb2,
    prompter_pb2_grpc,
    rules_pb2,
    study_pb2,
    study_pb2_grpc,
    upload_pb2,
    upload_pb2_grpc,
)

if TYPE_CHECKING:  # it needs the S3 client, which is loaded where there is an S3 store
    from cellsparse_orchestrator.runs.store_credentials import CredentialIssuer

_LOG = logging.getLogger(__name__)


class Application:
    """The whole orchestrator, built from its settings; nothing runs before `start`.

    Args:
        settings: What to build.
        launcher: Runs the other services; None for the launcher that the settings name.

    Attributes:
        registry: The Prometheus metrics.
        gate: Decides who may call; None: everybody.

    Raises:
        Unavailable: The database cannot be opened.
        FailedPrecondition: The cluster cannot be reached, or a newer version has used the database.
        InvalidArgument: The store's URL or the cluster file is not valid.
    """

    def __init__(self, settings: OrchestratorSettings, launcher: Launcher | None = None) -> None:
        self._settings = settings
        self._store = open_checked_store(settings)
        self._database = Database(settings.database_url.get_secret_value(), seconds=settings.database_seconds)
        self._notifier = Notifier()
        self._launcher = launcher or _launcher(settings)
        datasets = self._datasets = Datasets(self._database)
        if datasets.any():
            self._store.expect()
        self._gate = StoreGate(self._store, lambda: self._notifier.notify(RECONCILER), settings.store_seconds)
        runs = Runs(self._database, self._notifier, lambda: self._gate.waiting)
        studies, study_transitions = (
            Studies(self._database, self._notifier),
            StudyTransitions(self._database, self._notifier),
        )
        self.registry = new_registry()
        self.registry.register(RunCounts(runs.count_states))
        self.registry.register(QuotaMetrics(self._database))
        self.registry.register(WaitingCalls(lambda: _waiting_calls(self._launcher)))
        transitions = RunTransitions(self._database, self._notifier, RunMetrics(self.registry))
        self._strays = StrayWatch(transitions, self._launcher, settings.stop_seconds)
        self._reconciler = RunReconciler(
            transitions,
            self._launcher,
            self._notifier,
            limits=Limits(
                slots=settings.slots, first_pause=settings.retry_seconds, longest_pause=settings.retry_limit_seconds
            ),
            timeouts=Timeouts(start=settings.start_seconds, lost=settings.lost_seconds, stop=settings.stop_seconds),
            specify=self._specify,
            trace=lambda attempt: read_trace(self._store, attempt.run_id),
            gate=self._gate,
            issuer=_issuer(settings),
        )
        deletions = Deletions(self._database, timedelta(days=settings.grace_days))
        uploads = make_uploads(settings, self._store, self._database)
        self._upload_servicer = UploadServicer(settings, uploads)
        tables = Tables(
            datasets=datasets, runs=runs, models=Models(self._database), deletions=deletions, uploads=uploads.table
        )
        self._orchestrator = OrchestratorServicer(settings, self._store, tables, self._launcher, self._notifier)
        self._dataset_servicer = DatasetServicer(settings, self._store, tables, self._launcher)
        self._project_servicer = ProjectServicer(
            settings, self._store, self._database, tables, self._launcher, self._orchestrator
        )
        collections = Collections(settings, self._store, self._database, uploads.sweep)
        self._collection_timer = CollectionTimer(collections, settings.collect_hours)
        self._prompter_servicer = PrompterServicer(settings, self._store, self._database)
        self._admin_servicer = AdminServicer(settings, self._store, self._database, collections)
        tokens, changes = Tokens(self._database), Changes(self._database, settings.audit_days)
        self._access_servicer = AccessServicer(tokens, changes)
        self.gate = (
            None if settings.auth == "off" else Gate(tokens, changes, _admin_token(settings), _provider(settings))
        )
        self._study_servicer = StudyServicer(
            self._store,
            studies=studies,
            datasets=datasets,
            models=tables.models,
            launcher=self._launcher,
            notifier=self._notifier,
            deletions=deletions,
        )
        actions = MemberActions(
            study_transitions,
            datasets=datasets,
            runs=runs,
            store=self._store,
            launcher=self._launcher,
            seconds=settings.evaluate_seconds,
        )
        self._studies = StudyReconciler(study_transitions, studies, actions, self._notifier, slots=settings.slots)
        self._readiness = ReadinessWatch(
            [
                database_check(self._database),
                store_check(self._store),
                disk_check(settings.home),
                lambda: self._gate.problem,
                reconciler_check(self._reconciler),
            ]
        )
        self._leadership = Leadership(self._database, settings.lease_seconds, self._lead, _end_process)
        add_state_gauges(
            self.registry,
            leads=lambda: not self._leadership.problem,
            ready=lambda: not (self._readiness.problem or self._leadership.problem),
            store_away=lambda: bool(self._gate.problem),
        )

    def add(self, server: grpc.Server) -> list[str]:
        """Register the servicers; return their full names."""
        dataset_pb2_grpc.add_DatasetServiceServicer_to_server(self._dataset_servicer, server)
        orchestrator_pb2_grpc.add_OrchestratorServiceServicer_to_server(self._orchestrator, server)
        project_pb2_grpc.add_ProjectServiceServicer_to_server(self._project_servicer, server)
        prompter_pb2_grpc.add_PrompterServiceServicer_to_server(self._prompter_servicer, server)
        study_pb2_grpc.add_StudyServiceServicer_to_server(self._study_servicer, server)
        admin_pb2_grpc.add_AdminServiceServicer_to_server(self._admin_servicer, server)
        access_pb2_grpc.add_AccessServiceServicer_to_server(self._access_servicer, server)
        upload_pb2_grpc.add_UploadServiceServicer_to_server(self._upload_servicer, server)
        return [
            dataset_pb2.DESCRIPTOR.services_by_name["DatasetService"].full_name,
            orchestrator_pb2.DESCRIPTOR.services_by_name["OrchestratorService"].full_name,
            project_pb2.DESCRIPTOR.services_by_name["ProjectService"].full_name,
            prompter_pb2.DESCRIPTOR.services_by_name["PrompterService"].full_name,
            study_pb2.DESCRIPTOR.services_by_name["StudyService"].full_name,
            admin_pb2.DESCRIPTOR.services_by_name["AdminService"].full_name,
            access_pb2.DESCRIPTOR.services_by_name["AccessService"].full_name,
            upload_pb2.DESCRIPTOR.services_by_name["UploadService"].full_name,
        ]

    def start(self, address: str) -> None:
        """Start everything, once the server answers at `address` (host:port)."""
        self._orchestrator.address = address
        self._leadership.begin()
        self._readiness.start()
        tell_clients(self._settings.home, address)

    @property
    def standby(self) -> str:
        """Why calls are refused, because this orchestrator does not lead; empty: it does."""
        return self._leadership.problem

    @property
    def missing(self) -> str:
        """What is away that this orchestrator needs; empty: nothing."""
        return self._readiness.problem

    @property
    def lost(self) -> bool:
        """Whether another orchestrator has taken over from this one while it worked."""
        return self._leadership.was_lost

    def _lead(self) -> None:
        """Begin to work: the lease is ours."""
        if self._datasets.any():  # those of the orchestrator that led before may have made the store
            self._store.expect()
        for each in (
            self._launcher,
            self._gate,
            self._reconciler,
            self._strays,
            self._studies,
            self._collection_timer,
        ):
            each.start()

    def drain(self) -> None:
        """Detach from runs and end watching clients; other calls may still finish."""
        self._notifier.close()
        self._readiness.stop()
        if not self._leadership.ever_led:
            self._leadership.stop()
            return
        self._collection_timer.stop()
        self._studies.stop()
        self._strays.stop()
        self._gate.stop()
        try:
            self._reconciler.stop()
        except CellsparseError as error:
            _LOG.warning("the shutdown could not be recorded in the runs: %s", error.message)

    def stop(self) -> None:
        """Stop the launcher, then give back the lease, so that nothing runs when another orchestrator takes over."""
        if self._leadership.ever_led:
            self._launcher.stop()
        self._leadership.stop()
        self._database.close()

    def _specify(self, attempt: RunAttempt, versions: dict[str, str]) -> None:
        try:
            manifest = read_manifest(self._store, attempt.dataset_id)
            trace = read_trace(self._store, attempt.run_id)
            write_spec(self._store, attempt.run_id, attempt.settings, manifest, versions, trace)
        except CellsparseError as error:
            if store_is_away(error):
                raise  # the attempt waits for the store
            # What is wrong with the dataset, the trainer says better.
            _LOG.warning("the specification of run %s cannot be written: %s", attempt.run_id, error.message)


def _issuer(settings: OrchestratorSettings) -> "CredentialIssuer | None":
    if not settings.sts_endpoint:
        return None
    from cellsparse_orchestrator.runs.store_credentials import CredentialIssuer

    return CredentialIssuer(settings)


def _provider(settings: OrchestratorSettings) -> Provider | None:
    """Return the identity provider that the settings name."""
    if not settings.oidc_issuer:
        return None
    roles: dict[str, rules_pb2.Role] = {
        text: getattr(rules_pb2, f"ROLE_{role.upper()}") for text, role in settings.oidc_roles.items()
    }
    return Provider(
        Rules(
            issuer=settings.oidc_issuer,
            audience=settings.oidc_audience,
            roles_claim=settings.oidc_roles_claim,
            project_claim=settings.oidc_project_claim,
            roles=roles,
        )
    )


def _admin_token(settings: OrchestratorSettings) -> str:
    return settings.admin_token.get_secret_value() or home_token(settings.home, new_secret)


def _end_process() -> None:
    """Ask this process to end as if it were told to from outside."""
    # To the main thread: a signal that another thread receives does not wake it.
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)


def _waiting_calls(launcher: Launcher) -> dict[str, int]:
    """Return how many calls wait for trainers that are asleep, by backend."""
    trainers = [service for service in launcher.services() if service.name not in NOT_TRAINERS]
    return {each.name: each.wake_queue.waiting if each.wake_queue else 0 for each in trainers}


def _launcher(settings: OrchestratorSettings) -> Launcher:
    if settings.launcher == "local":
        return LocalLauncher(settings)
    room = threading.Semaphore(max(1, settings.workers // 4))
    wake_queues = [(name, WakeQueue(name, settings.wake_seconds, room)) for name in settings.scale_to_zero]
    given = static_launcher(settings.trainers, settings.sparsifier, wake_queues)
    if settings.launcher == "static":
        return given
    # Imported only here: the Kubernetes client takes long to import, and a laptop does not need it.
    from cellsparse_orchestrator.launchers.kubernetes.cluster import connect
    from cellsparse_orchestrator.launchers.kubernetes.launcher import KubernetesLauncher
    from cellsparse_orchestrator.launchers.kubernetes.settings import read_settings

    assert settings.cluster_file is not None  # the settings check this
    return KubernetesLauncher(read_settings(settings.cluster_file), connect(str(settings.kubeconfig or "")), given)
