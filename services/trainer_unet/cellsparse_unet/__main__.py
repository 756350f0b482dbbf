"""Starts the U-Net trainer service."""

from cellsparse_trainer.main import run_trainer
from cellsparse_trainer.processes.launch import torchrun


def main() -> None:
    """Serves until told to stop."""
    run_trainer(backend="unet", module="cellsparse_unet.backend", default_port=50054, launcher=torchrun)


if __name__ == "__main__":
    main()
