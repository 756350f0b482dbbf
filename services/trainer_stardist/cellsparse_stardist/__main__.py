"""Serves StarDist; TensorFlow is imported in child processes only."""

from cellsparse_trainer.main import run_trainer
from cellsparse_trainer.processes.launch import one_per_rank


def main() -> None:
    """Serve until SIGTERM."""
    run_trainer(backend="stardist", module="cellsparse_stardist.backend", default_port=50053, launcher=one_per_rank)


if __name__ == "__main__":
    main()
