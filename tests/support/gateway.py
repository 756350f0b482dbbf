"""A real gateway process in front of a real orchestrator."""

from pathlib import Path

from support.server_process import ServerProcess


class Gateway(ServerProcess):
    """`with Gateway(home) as gateway:` gives one that answers; it reads the orchestrator's address from `home`.

    Attributes:
        url: http://host:port.
        api: The same with /api/v1.
    """

    def __init__(self, home: Path, **environment: str) -> None:
        work = home / "gateway"
        work.mkdir(parents=True, exist_ok=True)
        settings = {
            "CELLSPARSE_HOME": str(home),
            "CELLSPARSE_GATEWAY_PORT": "0",
            "CELLSPARSE_GATEWAY_ADDRESS_FILE": str(work / "address"),
            **environment,
        }
        super().__init__(["-m", "cellsparse_gateway"], home / "store", work, **settings)

    def __enter__(self) -> "Gateway":
        super().__enter__()
        self.url = f"http://{self.address}"
        self.api = f"{self.url}/api/v1"
        return self
