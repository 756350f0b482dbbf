"""Where the processes of an attempt are."""

import socket
from dataclasses import replace
from pathlib import Path

from cellsparse_trainer.launch import LOOPBACK, WORKER_PORTS, here, torchrun


def ports(placement):
    return set(range(placement.port, placement.port + WORKER_PORTS + placement.processes))


def test_attempts_that_begin_at_once_get_ports_of_their_own():
    """Before either listens: two runs of one trainer would meet each other's processes."""
    taken = [ports(here(processes)) for processes in (2, 8, 2, 3)]
    assert len(set.union(*taken)) == sum(map(len, taken))


def test_ports_in_use_are_left_out():
    first = here(2)
    with socket.create_server((LOOPBACK, first.port + 2 * len(ports(first)) - 1)):
        found = [ports(here(2)) for _ in range(3)]
        assert not any(first.port + 2 * len(ports(first)) - 1 in each for each in found)


def test_nodes_have_as_long_to_come_as_the_trainer_says():
    """Torchrun's own deadline is ten minutes."""
    placement = replace(here(2), start_seconds=7.5)
    assert "--rdzv-conf=timeout=8" in torchrun(Path("job.json"), placement)
