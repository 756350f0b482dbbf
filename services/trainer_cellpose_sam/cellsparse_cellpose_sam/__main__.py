"""Serves this package's backend."""

from cellsparse_cellpose_sam import BACKEND
from cellsparse_trainer.main import run_trainer


def main() -> None:
    """Serve until SIGTERM."""
    run_trainer(BACKEND)


if __name__ == "__main__":
    main()
