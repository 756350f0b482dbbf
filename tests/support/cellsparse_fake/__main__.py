from cellsparse_trainer.main import run_trainer


def main() -> None:
    run_trainer(backend="unet", module="support.cellsparse_fake.backend", default_port=0)


if __name__ == "__main__":
    main()
