"""Serves `TrainerService` for Cellpose."""

from cellsparse_trainer.main import run_trainer
from cellsparse_trainer.processes.launch import torchrun


def main() -> None:
    """Run until a signal ends it."""
    run_trainer(backend="cellpose", module="cellsparse_cellpose.backend", default_port=50052, launcher=torchrun)


if __name__ == "__main__":
    main()
