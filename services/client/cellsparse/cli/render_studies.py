"""Tables and lines of studies for the terminal."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from cellsparse import enum_names
from cellsparse.cli.render import COLOURS, duration, new_table, when
from cellsparse_proto.v1 import sparsifier_pb2, study_pb2


def study_table(studies: Iterable[study_pb2.Study]) -> Table:
    """Return one row per study."""
    shown = new_table("ID", "NAME", "DATASET", "STATE", "MEMBERS", "DONE", "TRAINING", "FAILED", "MADE")
    for study in studies:
        done = study.succeeded + study.failed + study.cancelled
        shown.add_row(
            study.id,
            study.name,
            study.dataset_id,
            state_text(enum_names.name(study_pb2.StudyState.DESCRIPTOR, study.state)),
            str(study.members),
            str(done),
            str(study.training),
            str(study.failed),
            when(study.created_at),
        )
    return shown


def study_details(study: study_pb2.Study, members: Sequence[study_pb2.StudyMember]) -> RenderableType:
    """Return one study and its members."""
    return Group(study_table([study]), Text(study.message), Text(""), member_table(members))


def member_table(members: Iterable[study_pb2.StudyMember]) -> Table:
    """Return one row per member."""
    shown = new_table(
        "NO", "BACKEND", "LABELS", "SEED", "SETTINGS", "CELLS", "STATE", "F1", "AP", "TIME", "RUN", "NOTE"
    )
    for member in members:
        first = member.scores[0] if member.scores else None
        shown.add_row(
            str(member.number),
            member.backend,
            labels_text(member),
            str(member.seed),
            settings_text(member),
            str(member.annotated_cells or ""),
            state_text(enum_names.name(study_pb2.MemberState.DESCRIPTOR, member.state)),
            f"{first.f1:.3f}" if first else "",
            f"{first.ap:.3f}" if first else "",
            duration(member.training_seconds) if member.training_seconds else "",
            member.run_id,
            member.message if member.state == study_pb2.MEMBER_STATE_FAILED else "",
        )
    return shown


def member_line(study: study_pb2.Study, member: study_pb2.StudyMember) -> str:
    """Return a member that has ended as one line."""
    done = study.succeeded + study.failed + study.cancelled
    state = enum_names.name(study_pb2.MemberState.DESCRIPTOR, member.state)
    parts = [f"{done}/{study.members}", f"{member.number:>3}", member.backend, labels_text(member)]
    parts += [part for part in (f"seed {member.seed}" if member.seed else "", settings_text(member)) if part]
    if member.scores:
        parts.append(f"F1 {member.scores[0].f1:.3f} after {duration(member.training_seconds)}")
    else:
        parts.append(f"{state}: {member.message}" if member.message else state)
    return "  ".join(parts)


def cost_line(cost: Mapping[str, Any]) -> str:
    """Return what a study has cost, from its report's `cost`."""
    spent = f"{duration(cost['training_seconds'])} of training, {cost.get('gpu_seconds', 0.0):.0f} GPU-seconds"
    return f"cost: {spent}, {cost['annotated_cells_of_largest_label_set']} annotated cells in the largest label set"


def labels_text(member: study_pb2.StudyMember) -> str:
    """Return which labels a member trains on: "minmax k=4, shifted", "all cells, none", or "as uploaded"."""
    if not member.mode:
        return "as uploaded"
    mode = enum_names.name(sparsifier_pb2.SelectionMode.DESCRIPTOR, member.mode)
    rule = enum_names.name(sparsifier_pb2.BackgroundRule.DESCRIPTOR, member.background)
    return f"{mode} k={member.k or 'all'}, {rule}"


def settings_text(member: study_pb2.StudyMember) -> str:
    """Return a member's settings on one line."""
    return ", ".join(f"{name}={value}" for name, value in sorted(member.settings.items()))


def state_text(state: str) -> Text:
    """Return a state in its colour."""
    return Text(state, COLOURS.get(state, ""))
