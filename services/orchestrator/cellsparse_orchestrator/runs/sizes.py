"""How many nodes the next attempt of a run has, and with how few it may begin.

Every attempt asks for all nodes. The first one waits until it has them, as do those of a run that does not say
`min_nodes`. A later one may begin with fewer: its training has been interrupted, and would else stand still. A number
of nodes whose memory was too small is not tried again.
"""

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from cellsparse_common.errors import InvalidArgument
from cellsparse_orchestrator import run_states
from cellsparse_orchestrator.db.tables import AttemptRow
from cellsparse_proto.v1 import common_pb2, trainer_pb2

_OUT_OF_MEMORY = run_states.reason_name(common_pb2.FAILURE_REASON_OUT_OF_MEMORY)


def check_size(settings: trainer_pb2.TrainingSettings) -> None:
    """Refuse settings that could never be followed; raises InvalidArgument."""
    if settings.min_nodes > asked(settings):
        raise InvalidArgument(
            f"settings.min_nodes is {settings.min_nodes}; allowed: 1 to settings.nodes, {asked(settings)}.",
            "settings.min_nodes",
        )


def asked(settings: trainer_pb2.TrainingSettings) -> int:
    """Return how many nodes a run asks for."""
    return max(1, settings.nodes)


def fewest(settings: trainer_pb2.TrainingSettings, attempt: int, too_few: int) -> int:
    """Return with how few nodes an attempt may begin.

    Args:
        settings: The run's.
        attempt: The attempt's number, from 1.
        too_few: Most nodes of an earlier attempt whose memory ran out; 0: of none.
    """
    if attempt == 1 or not settings.min_nodes:
        return asked(settings)
    return min(asked(settings), max(settings.min_nodes, too_few + 1))


def find_fewest(session: Session, run_id: str, settings: trainer_pb2.TrainingSettings, attempt: int) -> int:
    """Return with how few nodes an attempt may begin; see `fewest`."""
    if fewest(settings, attempt, 0) == asked(settings):
        return asked(settings)
    of_run = select(func.max(AttemptRow.nodes)).where(AttemptRow.run_id == run_id, AttemptRow.reason == _OUT_OF_MEMORY)
    return fewest(settings, attempt, session.scalar(of_run) or 0)
