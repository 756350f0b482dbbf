"""How many processes predict, and what each has of the machine: one GPU, or its share of the cores."""

from collections.abc import Mapping, Sequence

from cellsparse_trainer.processes.thread_counts import thread_counts

_VISIBLE = "CUDA_VISIBLE_DEVICES"


def inference_environments(processes: int, gpus: int, environment: Mapping[str, str]) -> Sequence[Mapping[str, str]]:
    """Return the variables of each process beside those of its server.

    Args:
        processes: How many there shall be; 0: one per GPU, without a GPU one.
        gpus: How many GPUs there are.
        environment: The server's variables. Threads that they set stay, and GPUs that they hide stay hidden.
    """
    named = [name.strip() for name in environment[_VISIBLE].split(",")] if _VISIBLE in environment else None
    visible = (list(map(str, range(gpus))) if named is None else [name for name in named if name]) if gpus else []
    count = processes or max(1, len(visible))
    threads = thread_counts(count, environment)
    if visible:
        return [{**threads, _VISIBLE: visible[number % len(visible)]} for number in range(count)]
    return [threads] * count
