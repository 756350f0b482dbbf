"""All faults of an upload in one error, so that nobody repairs a data set one file per upload.

An error travels in the trailing metadata of a call, of which gRPC takes 8 KiB by default. What does not fit there, once
in the sentence and once in the list of fields, is cut.
"""

from collections.abc import Sequence

from cellsparse_common.errors import CellsparseError, InvalidArgument, ResourceExhausted

MAX_SHOWN = 20
"""Most faults that are told; others are counted."""
_ROOM = 3_100
"""Most characters of all sentences in the list of fields."""
_MESSAGE_ROOM = 600
"""Most characters of the sentences in the message."""


class Faults:
    """Collects what is wrong with the items of an upload."""

    def __init__(self) -> None:
        self.count = 0
        self._shown: list[CellsparseError] = []
        self._kinds: set[type[CellsparseError]] = set()

    def add(self, error: CellsparseError) -> None:
        """Take a fault."""
        self.count += 1
        self._kinds.add(type(error))
        if len(self._shown) < MAX_SHOWN:
            self._shown.append(error)

    def raise_all(self) -> None:
        """Raise what was collected, if anything: one fault as it is, several as one error.

        Raises:
            CellsparseError: There was a fault.
        """
        if self.count == 1:
            raise self._shown[0]
        if self.count:
            fields = [_as_violation(error) for error in self._shown]
            raise combine(fields, self.count, exhausted=self._kinds == {ResourceExhausted})


def combine(violations: Sequence[tuple[str, str]], count: int, *, exhausted: bool = False) -> CellsparseError:
    """Return one error for several faults, short enough to be sent.

    Args:
        violations: (field, sentence) pairs, at most `MAX_SHOWN` of which are kept.
        count: Number of all faults.
        exhausted: Whether all are limits that were exceeded.
    """
    kept = list(violations[:MAX_SHOWN])
    if sum(len(sentence) for _, sentence in kept) > _ROOM:
        kept = _shortened(kept)
    room = _ROOM // max(len(kept), 1)
    if sum(len(sentence) for _, sentence in kept) <= _ROOM:
        room = _ROOM
    shown = [(field[:60], _cut(sentence, room)) for field, sentence in kept]
    if count > len(kept):
        shown.append(("items", f"{count - len(kept):,} more faults are not listed."))
    message, left = _head(count), _MESSAGE_ROOM
    for _, sentence in shown:
        left -= len(sentence) + 1
        if left < 0:
            message += " ..."
            break
        message += f" {sentence}"
    return (ResourceExhausted if exhausted else InvalidArgument)(message, violations=shown)


def spelled_out(error: CellsparseError) -> CellsparseError:
    """Return an error that was sent, with the sentences of all its faults in its message, one per line."""
    head = error.message.split(". ")[0]
    if len(error.violations) < 2 or not head.endswith(_HEAD):
        return error
    lines = [f"{head}.", *(sentence for _, sentence in error.violations)]
    return type(error)("\n".join(lines), violations=error.violations)


def merge(local: Faults, remote: CellsparseError | None) -> CellsparseError:
    """Return one error for the faults that a client found itself and those that the server did.

    Args:
        local: What the client found, at least one fault.
        remote: What the server answered; None, or an error without fields, adds nothing.
    """
    try:
        local.raise_all()
    except CellsparseError as error:
        mine = error
    theirs = [each for each in remote.violations if each[0] not in _STREAM_FIELDS] if remote else []
    if not theirs or not isinstance(remote, InvalidArgument | ResourceExhausted):
        return spelled_out(mine)
    own = mine.violations or [("", mine.message)]
    return spelled_out(combine([*own, *theirs], len(own) + len(theirs)))


_STREAM_FIELDS = ("end", "end.items", "part")
"""Fields of faults that a client causes by ending its upload without the last message."""
_HEAD = "faults in this upload, of which nothing is kept"


def _head(count: int) -> str:
    return f"{count:,} {_HEAD}."


def _as_violation(error: CellsparseError) -> tuple[str, str]:
    field = error.violations[0][0] if error.violations else ""
    return field, error.message


def _shortened(violations: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the faults, those that differ from one before in the name of their file only without a full sentence."""
    seen: set[str] = set()
    shorter = []
    for field, sentence in violations:
        rest = sentence.replace(field, "") if field else sentence
        shorter.append((field, f"The {field} has the same fault." if field and rest in seen else sentence))
        seen.add(rest)
    return shorter


def _cut(sentence: str, room: int) -> str:
    return sentence if len(sentence) <= room else f"{sentence[: room - 4]} ..."
