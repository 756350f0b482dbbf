"""Two nodes train one model, and the network between them is cut: both end, and the next attempt goes on."""

import itertools
import time

import psutil
import pytest
from support.limits import LONG_PATIENCE, PATIENCE
from support.server_process import ServerProcess
from support.tiny_dataset import write_dataset
from support.two_nodes import missing, two_nodes

from cellsparse_common.config.settings import StoreSettings
from cellsparse_common.rpc.channel import open_channel
from cellsparse_common.storage import open_store
from cellsparse_proto.v1 import common_pb2, trainer_pb2, trainer_pb2_grpc

BACKENDS = {"unet": trainer_pb2.TrainingSettings(unet=trainer_pb2.UnetSettings(base_channels=4))}
STEPS = 150
AS_GOOD = 1e-4
"""Of losses and scores, absolute: see `test_ranks`."""
NOTICED_SECONDS = 120.0
"""See `test_ranks`."""
PORTS = itertools.count(29400)
"""Each attempt has its own, as each has pods of its own: the one before may still be ending."""
ONE_THREAD = {"OMP_NUM_THREADS": "1", "TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}


@pytest.fixture
def nodes():
    reason = missing()
    if reason:
        pytest.skip(reason)
    with two_nodes() as both:
        yield both


def start(stubs, nodes, backend, run_id, attempt):
    """Start an attempt on both nodes; return the events of each as they come."""
    settings = trainer_pb2.TrainingSettings(
        nodes=2,
        steps=STEPS,
        batch_size=1,
        crop_size=32,
        checkpoint_every_steps=2,
        validate_every_steps=STEPS,
        seed=3,
        patience=0,
    )
    settings.MergeFrom(BACKENDS[backend])
    port = next(PORTS)
    for node in (1, 0):
        placement = trainer_pb2.Placement(hosts=nodes.addresses, node=node, port=port)
        request = trainer_pb2.StartTrainingRequest(
            run_id=run_id, attempt=attempt, dataset_id="ds-tiny", settings=settings, placement=placement
        )
        stubs[node].StartTraining(request, timeout=PATIENCE, wait_for_ready=True)
    asked = trainer_pb2.WatchTrainingRequest(run_id=run_id, attempt=attempt)
    return [(answer.event for answer in stub.WatchTraining(asked, timeout=PATIENCE)) for stub in stubs]


def end(events):
    """The last loss of a run, and its model's scores; fails unless it succeeded."""
    events = list(events)
    assert events[-1].state == common_pb2.RUN_STATE_SUCCEEDED, events[-1]
    last = [event for event in events if event.losses][-1]
    return events, {"step": last.step, "loss": last.losses["loss"], **events[-1].validation}


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_cut_network_ends_the_attempt_on_both_nodes_and_the_next_one_is_as_good_as_undisturbed(
    backend, nodes, tmp_path
):
    write_dataset(open_store(StoreSettings(store_url=f"file://{tmp_path / 'store'}")), "ds-tiny")
    servers = []
    for node in (0, 1):
        (tmp_path / str(node)).mkdir()
        place = {"CELLSPARSE_HOST": nodes.addresses[node], "CELLSPARSE_INSECURE": "1", **ONE_THREAD}
        place["CELLSPARSE_START_SECONDS"] = f"{LONG_PATIENCE:.0f}"
        prefix = nodes.inside(node, [])
        servers.append(
            ServerProcess(
                ["-m", f"cellsparse_{backend}"], tmp_path / "store", tmp_path / str(node), prefix=prefix, **place
            )
        )
    with servers[0] as first, servers[1] as second:
        with open_channel(first.address) as one, open_channel(second.address) as other:
            stubs = [trainer_pb2_grpc.TrainerServiceStub(channel) for channel in (one, other)]
            _, undisturbed = end(start(stubs, nodes, backend, "run-calm", 1)[0])
            leading, following = start(stubs, nodes, backend, "run-cut", 1)
            for event in leading:
                if event.checkpoint_step >= 4:
                    break
            else:
                pytest.fail(f"it ended before its second checkpoint: {event}")
            workers = psutil.Process(second.pid).children(recursive=True)
            nodes.cut(1)
            then = time.monotonic()
            last = list(leading)[-1]
            assert (last.state, last.reason) == (common_pb2.RUN_STATE_FAILED, common_pb2.FAILURE_REASON_LOST), last
            assert time.monotonic() - then < NOTICED_SECONDS
            gone = psutil.wait_procs(workers, timeout=NOTICED_SECONDS - (time.monotonic() - then))
            assert gone[1] == []
            nodes.join(1)
            following.close()
        with open_channel(first.address) as one, open_channel(second.address) as other:
            stubs = [trainer_pb2_grpc.TrainerServiceStub(channel) for channel in (one, other)]
            events, found = end(start(stubs, nodes, backend, "run-cut", 2)[0])
            assert min(event.step for event in events if event.losses) > 2
            assert found == pytest.approx(undisturbed, abs=AS_GOOD)
