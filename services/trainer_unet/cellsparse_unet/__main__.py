"""Serves this package's backend."""

from cellsparse_trainer.main import run_trainer
from cellsparse_unet import BACKEND


def main() -> None:
    """Serve until SIGTERM."""
    run_trainer(BACKEND)


if __name__ == "__main__":
    main()
