"""Chooses the number format of a run's network where the settings leave it open, and keeps the choice with the run.

The choice depends on the hardware, so it is made once per run, when its first attempt starts. Later attempts keep it:
on the same hardware they continue bit for bit. On hardware without bfloat16 they continue in float32 and say so, since
emulating bfloat16 is slower than float32. All processes that train one model together compute in one format.
"""

from dataclasses import dataclass, replace

from cellsparse_common.errors import Damaged, NotFound
from cellsparse_common.storage import ObjectStore, keys
from cellsparse_trainer.config import precision as formats
from cellsparse_trainer.config.plan import Plan
from cellsparse_trainer.distributed.heartbeat import Coordinator, Worker
from cellsparse_trainer.training.checkpoints import LATEST, Checkpoints

_FILE = "number-format"


@dataclass(frozen=True, kw_only=True)
class Settled:
    """A plan whose number format is chosen."""

    plan: Plan
    """Its precision is "float32" or "bfloat16"."""
    sentence: str
    """What was chosen, and why."""


def settle(
    plan: Plan,
    device: str,
    store: ObjectStore,
    checkpoints: Checkpoints,
    run_id: str,
    *,
    capable: bool | None,
    peers: Coordinator | Worker | None = None,
) -> Settled:
    """Return the plan with the number format that this attempt computes in.

    Args:
        plan: The run's.
        device: Type of the device, "cpu" or "cuda".
        store: Keeps the choice.
        checkpoints: The run's.
        run_id: The run.
        capable: Whether this process' device computes in bfloat16 in hardware; None: the backend does not.
        peers: The other processes that train this model; rank 0 decides. None: there are none.

    Raises:
        InvalidArgument: The plan asks for bfloat16, and the device has none.
        StorageError: The store failed, or what it keeps is damaged.
    """
    chosen = formats.choose(plan.precision, device, capable=bool(capable))
    if plan.precision != formats.AUTO:
        return _settled(plan, chosen, "as the settings say")
    if isinstance(peers, Worker):
        peers.say(chosen)
        return _settled(plan, peers.hear(), "as rank 0 chose")
    why = _reason(chosen, device, capable)
    if peers is not None and formats.FLOAT32 in peers.hear_all() and chosen == formats.BFLOAT16:
        chosen, why = formats.FLOAT32, "not all processes of this training compute in bfloat16"
    kept = _kept(store, run_id)
    if kept is None:
        if device == "cpu" and checkpoints.pointer(LATEST) is not None:
            chosen, why = formats.FLOAT32, "an earlier version began the run in it"
        store.put(keys.report_file(run_id, _FILE), chosen.encode())
    elif kept == chosen or kept == formats.FLOAT32:
        chosen, why = kept, "as the run began"
    else:
        why += ". The run began in bfloat16, so results differ a little from those without the break"
    if peers is not None:
        peers.tell(chosen)
    return _settled(plan, chosen, why)


def _reason(chosen: str, device: str, capable: bool | None) -> str:
    name = {"cpu": "CPU", "cuda": "GPU"}[device]
    if chosen == formats.BFLOAT16:
        return f"which this {name} computes in"
    if capable is None:
        return "this backend trains in no other"
    if capable:
        return "as the service's settings say"
    return f"this {name} does not compute in bfloat16, or not well enough for this backend"


def _settled(plan: Plan, chosen: str, why: str) -> Settled:
    return Settled(plan=replace(plan, precision=chosen), sentence=f"Number format: {chosen}, {why}.")


def _kept(store: ObjectStore, run_id: str) -> str | None:
    """Return what the run's first attempt chose; None if none did."""
    try:
        kept = store.get(keys.report_file(run_id, _FILE)).decode(errors="replace")
    except NotFound:
        return None
    if kept not in (formats.FLOAT32, formats.BFLOAT16):
        raise Damaged(f"The number format kept for run {run_id} is damaged: {kept[:40]!r}.")
    return kept
