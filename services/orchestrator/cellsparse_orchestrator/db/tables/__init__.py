"""The tables. Times are UTC; states and reasons are the names of the protos' enums without their prefix."""

from cellsparse_orchestrator.db.tables.access import ChangeRow, TokenRow
from cellsparse_orchestrator.db.tables.catalogue import DatasetRow, ModelRow, UnreferencedRow, UploadRow
from cellsparse_orchestrator.db.tables.columns import Base, BigKey, Sentence, UtcTime, storable
from cellsparse_orchestrator.db.tables.installation import HoldRow, InstallationRow, LeaseRow, ReaderRow
from cellsparse_orchestrator.db.tables.projects import (
    AliasRow,
    AnnotationEditRow,
    LabelTileRow,
    LayerRow,
    ProjectImageRow,
    ProjectLimitsRow,
    ProjectRow,
    ProjectRunRow,
    PrompterRow,
)
from cellsparse_orchestrator.db.tables.runs import AttemptRow, EventRow, RunRow
from cellsparse_orchestrator.db.tables.studies import StudyMemberRow, StudyRow

__all__ = [
    "AliasRow",
    "AnnotationEditRow",
    "AttemptRow",
    "Base",
    "BigKey",
    "ChangeRow",
    "DatasetRow",
    "EventRow",
    "HoldRow",
    "InstallationRow",
    "LabelTileRow",
    "LayerRow",
    "LeaseRow",
    "ModelRow",
    "ProjectImageRow",
    "ProjectLimitsRow",
    "ProjectRow",
    "ProjectRunRow",
    "PrompterRow",
    "ReaderRow",
    "RunRow",
    "Sentence",
    "StudyMemberRow",
    "StudyRow",
    "TokenRow",
    "UnreferencedRow",
    "UploadRow",
    "UtcTime",
    "storable",
]
