from cellsparse_trainer.main import run_trainer
from cellsparse_trainer.processes.launch import one_per_rank


def main() -> None:
    run_trainer(backend="unet", module="support.cellsparse_fake.backend", default_port=0, launcher=one_per_rank)


if __name__ == "__main__":
    main()
