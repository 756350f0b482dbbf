"""The report of a study: a document, a table and plots."""

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cellsparse.targets import file_errors, make_folder


@dataclass(frozen=True, kw_only=True)
class StudyReport:
    """A study's report."""

    complete: bool
    """Whether the study has ended, so that the report does not change any more."""
    document: dict[str, Any]
    """The study, its members, means over seeds, best models and cost."""
    members_csv: bytes
    """One line per member, after a header line."""

    def write(self, folder: Path) -> list[Path]:
        """Write report.json, members.csv and the plots into a folder; return their paths.

        The plots need matplotlib (`pip install 'cellsparse[plots]'`) and are left out where it is not installed.

        Raises:
            InvalidArgument: The folder cannot be written.
        """
        make_folder(folder)
        document, table = folder / "report.json", folder / "members.csv"
        with file_errors(f"The report cannot be written to {folder}"):
            document.write_text(json.dumps(self.document, indent=1) + "\n", encoding="utf-8")
            table.write_bytes(self.members_csv)
        if not can_plot():
            return [document, table]
        from cellsparse.study_plots import write_plots  # loads matplotlib, which takes a while

        return [document, table, *write_plots(folder, self.document)]


def can_plot() -> bool:
    """Return whether matplotlib is installed, without loading it."""
    return importlib.util.find_spec("matplotlib") is not None
