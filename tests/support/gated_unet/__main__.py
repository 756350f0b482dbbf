from support.gated_unet import BACKEND

from cellsparse_trainer.main import run_trainer


def main() -> None:
    run_trainer(BACKEND)


if __name__ == "__main__":
    main()
