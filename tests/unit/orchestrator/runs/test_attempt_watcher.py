"""How an attempt is watched: on the first of several nodes, and until its end is confirmed."""

from concurrent.futures import Future, ThreadPoolExecutor

import grpc
import pytest
from grpc_status import rpc_status
from support.limits import PATIENCE
from support.orchestrator import until
from support.orchestrator_fakes import FakeLauncher, FakeTrainer

from cellsparse_common.errors import Damaged, NotFound, StorageError, to_status
from cellsparse_orchestrator.launchers.base import Service
from cellsparse_orchestrator.runs import attempt_watcher
from cellsparse_orchestrator.runs.attempt_watcher import AttemptWatcher, Callbacks, Timeouts
from cellsparse_orchestrator.runs.rows import RunAttempt
from cellsparse_orchestrator.runs.watcher_loop import WatcherLoop
from cellsparse_proto.v1 import common_pb2, trainer_pb2, trainer_pb2_grpc

LOOP = WatcherLoop()
FAILED = common_pb2.RUN_STATE_FAILED
EVICTED = common_pb2.FAILURE_REASON_EVICTED
LOST, MEMORY = common_pb2.FAILURE_REASON_LOST, common_pb2.FAILURE_REASON_OUT_OF_MEMORY


class Node(trainer_pb2_grpc.TrainerServiceServicer):
    """A trainer whose attempt has ended."""

    def __init__(self, reason, message):
        self.asked = []
        self.gone = False
        self.refuse_with = []
        self._event = trainer_pb2.TrainingEvent(sequence=1, state=FAILED, reason=reason, message=message)
        self._server = grpc.server(ThreadPoolExecutor(2))
        trainer_pb2_grpc.add_TrainerServiceServicer_to_server(self, self._server)
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def Describe(self, request, context):
        return trainer_pb2.DescribeResponse()

    def StartTraining(self, request, context):
        self.asked.append(request)
        if self.refuse_with:
            context.abort_with_status(rpc_status.to_status(to_status(self.refuse_with.pop())))
        return trainer_pb2.StartTrainingResponse(started=True)

    def WatchTraining(self, request, context):
        if self.gone:
            context.abort(grpc.StatusCode.UNAVAILABLE, "away")
        yield trainer_pb2.WatchTrainingResponse(event=self._event)

    def stop(self):
        self._server.stop(0)


class FixedNodes:
    """A launcher with the nodes of one attempt."""

    def __init__(self, hosts, preempted=""):
        self.preempted = preempted
        self._service = Service(name="unet", address=hosts[0], hosts=tuple(hosts))

    def ensure(self, *_):
        return self._service

    find = ensure

    def preemption(self, *_):
        return self.preempted

    def subscribe(self, *_):
        pass


@pytest.fixture(scope="module", autouse=True)
def loop():
    LOOP.start()
    yield
    LOOP.stop()


def done(result=None):
    future = Future()
    future.set_result(result)
    return future


def outcome(hosts, waiting=lambda *_: None, preempted="", specify=lambda *_: None):
    settings = trainer_pb2.TrainingSettings(unet=trainer_pb2.UnetSettings(), nodes=len(hosts))
    attempt = RunAttempt(run_id="run-1", number=1, backend="unet", dataset_id="ds-1", settings=settings)
    watcher = AttemptWatcher(
        attempt,
        FixedNodes(hosts, preempted),
        Timeouts(start=PATIENCE, lost=PATIENCE, stop=PATIENCE),
        Callbacks(store_event=lambda *_: done(), specify=specify, waiting=waiting, changed=lambda: None),
        LOOP,
    )
    watcher.start()
    watcher.join(PATIENCE)
    return watcher.outcome


@pytest.fixture
def node():
    made = []

    def make(reason, message):
        made.append(Node(reason, message))
        return made[-1]

    yield make
    for one in made:
        one.stop()


def test_the_reason_comes_from_the_node_where_the_failure_began(node):
    nodes = [node(LOST, "Rank 2 of 3 is gone."), node(LOST, "Rank 0 is gone."), node(MEMORY, "Memory ran out.")]
    found = outcome([one.address for one in nodes])
    assert (found.state, found.reason, found.message) == (FAILED, MEMORY, "Memory ran out.")
    assert [[request.placement.node for request in one.asked] for one in nodes] == [[0], [1], [2]]


def test_a_node_that_is_gone_explains_nothing(node):
    nodes = [node(LOST, "Rank 1 of 2 is gone."), node(MEMORY, "")]
    nodes[1].gone = True
    found = outcome([one.address for one in nodes])
    assert (found.reason, found.message) == (LOST, "Rank 1 of 2 is gone.")


def test_a_reason_that_the_first_node_knows_stays(node):
    nodes = [node(common_pb2.FAILURE_REASON_STORAGE, "The store is full."), node(MEMORY, "Memory ran out.")]
    found = outcome([one.address for one in nodes])
    assert (found.reason, found.message) == (common_pb2.FAILURE_REASON_STORAGE, "The store is full.")


def test_a_place_that_the_queue_took_back_is_no_failure_of_the_trainer(node):
    found = outcome([node(LOST, "It ended with code 143.").address], preempted="Preempted by Kueue.")
    assert (found.reason, found.message, found.preempted) == (EVICTED, "Preempted by Kueue.", True)
    found = outcome([node(MEMORY, "Memory ran out.").address], preempted="Preempted by Kueue.")
    assert (found.reason, found.preempted) == (MEMORY, False)


def test_a_trainer_that_cannot_reach_the_store_is_asked_again_in_the_same_attempt(node, monkeypatch):
    monkeypatch.setattr(attempt_watcher, "_STORE_PAUSE_SECONDS", 0.01)
    one, said = node(MEMORY, "Memory ran out."), []
    one.refuse_with = [StorageError("Cannot reach it.")] * 3
    found = outcome([one.address], waiting=lambda _, message: said.append(message))
    assert (found.reason, len(one.asked)) == (MEMORY, 4)
    assert said == ["waiting for the store: Cannot reach it."]


def test_no_trainer_is_asked_before_the_specification_is_stored(node, monkeypatch):
    monkeypatch.setattr(attempt_watcher, "_STORE_PAUSE_SECONDS", 0.01)
    one, said, specified = node(MEMORY, "Memory ran out."), [], []

    def specify(_, versions):
        specified.append((len(one.asked), versions))
        if len(specified) < 3:
            raise StorageError("Cannot reach it.")

    found = outcome([one.address], waiting=lambda _, message: said.append(message), specify=specify)
    assert (found.reason, len(one.asked)) == (MEMORY, 1)
    assert [asked for asked, _ in specified][:3] == [0, 0, 0]
    assert said == ["waiting for the store: Cannot reach it."]


@pytest.mark.parametrize(
    ("error", "damaged"),
    [(Damaged("It has another hash."), True), (NotFound("Dataset ds-1 does not exist.", "dataset_id"), False)],
)
def test_what_the_store_lacks_is_no_fault_of_the_user(node, error, damaged):
    one = node(MEMORY, "")
    one.refuse_with = [error]
    found = outcome([one.address])
    assert (found.reason, found.damaged) == (common_pb2.FAILURE_REASON_STORAGE, damaged)
    assert error.message in found.message


class FewNodes(FixedNodes):
    """A launcher that has one node less than an attempt asks for, and says so once."""

    def __init__(self, host):
        super().__init__([host])
        self.sizes = []

    def ensure(self, backend, run_id, attempt, size, project):
        self.sizes.append(size)
        if len(self.sizes) == 1:
            message = "1 of 2 pods have a node."
            return Service(name="unet", waiting=True, no_room=True, fewer=1, message=message)
        return Service(name="unet", address=self._service.address)


def test_an_attempt_that_cannot_have_all_nodes_goes_on_with_those_that_there_are(node):
    one, told = node(MEMORY, "Memory ran out."), []
    settings = trainer_pb2.TrainingSettings(unet=trainer_pb2.UnetSettings(), nodes=2, min_nodes=1)
    attempt = RunAttempt(
        run_id="run-1", number=2, backend="unet", dataset_id="ds-1", settings=settings, nodes=2, min_nodes=1
    )
    launcher = FewNodes(one.address)
    watcher = AttemptWatcher(
        attempt,
        launcher,
        Timeouts(start=PATIENCE, lost=PATIENCE, stop=PATIENCE),
        Callbacks(
            store_event=lambda *_: done(),
            specify=lambda *_: None,
            waiting=lambda *_: None,
            resized=lambda attempt, nodes, message: told.append((attempt.number, nodes, message)),
            changed=lambda: None,
        ),
        LOOP,
    )
    watcher.start()
    watcher.join(PATIENCE)
    assert [(size.nodes, size.fewest) for size in launcher.sizes] == [(2, 1), (1, 1)]
    message = "Attempt 2 goes on with 1 of 2 nodes, since no more can be had now: 1 of 2 pods have a node."
    assert told == [(2, 1, message)]
    assert watcher.attempt.has_fewer
    assert len(one.asked[0].placement.hosts) == 1, "else the trainer would start the processes of both nodes"


@pytest.fixture
def trainer():
    fake = FakeTrainer()
    server, fake.address = fake.serve()
    yield fake
    server.stop(0)


def watch(launcher, lost=PATIENCE):
    settings = trainer_pb2.TrainingSettings(unet=trainer_pb2.UnetSettings())
    attempt = RunAttempt(run_id="run-1", number=1, backend="unet", dataset_id="ds-1", settings=settings)
    stored = []
    watcher = AttemptWatcher(
        attempt,
        launcher,
        Timeouts(start=PATIENCE, lost=lost, stop=PATIENCE),
        Callbacks(
            store_event=lambda _, event: done(stored.append(event)),
            specify=lambda *_: None,
            waiting=lambda *_: None,
            changed=lambda: None,
        ),
        LOOP,
    )
    watcher.start()
    return watcher, stored


def test_a_trainer_whose_address_is_known_late_is_asked_to_end_all_the_same(trainer):
    launcher = FakeLauncher(trainer.address)
    watcher, stored = watch(launcher)
    until(lambda: trainer.asked)
    trainer.say("run-1", state=common_pb2.RUN_STATE_RUNNING)
    until(lambda: stored)
    known = launcher.trainer
    launcher.trainer = Service(name="unet", message="unet is being started.")  # as after a restart
    watcher.end_attempt()
    watcher.join(0.5)
    assert not watcher.finished
    launcher.trainer = known
    watcher.join(PATIENCE)
    assert watcher.outcome.state == common_pb2.RUN_STATE_CANCELLED


@pytest.mark.parametrize("status", [grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE])
def test_a_trainer_is_asked_to_end_until_it_confirms_that(trainer, status):
    watcher, _ = watch(FakeLauncher(trainer.address))
    until(lambda: trainer.asked)
    trainer.refuse_stop_with = [status] * 3
    watcher.end_attempt()
    watcher.join(PATIENCE)
    assert not trainer.refuse_stop_with
    assert watcher.outcome.state == common_pb2.RUN_STATE_CANCELLED


def test_a_trainer_that_is_too_busy_to_end_it_is_not_lost(trainer):
    watcher, _ = watch(FakeLauncher(trainer.address), lost=0.3)
    until(lambda: trainer.asked)
    trainer.refuse_stop_with = [grpc.StatusCode.RESOURCE_EXHAUSTED] * 5
    watcher.end_attempt()
    watcher.join(PATIENCE)
    assert watcher.outcome.state == common_pb2.RUN_STATE_CANCELLED
