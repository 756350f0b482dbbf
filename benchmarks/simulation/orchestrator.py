"""The real orchestrator on a simulated cluster; only the launcher is replaced.

Usage: PYTHONPATH=benchmarks python -m simulation.orchestrator SCENARIO FOLDER PORT

Settings come from the environment as for `python -m cellsparse_orchestrator`. PORT and FOLDER are those of
`simulation.trainers`. Writes FOLDER/samples.jsonl and, at the end, FOLDER/pods.json.
"""

import json
import socket
import sys
from pathlib import Path

from simulation.launcher import SimulatedLauncher
from simulation.load import DatabaseLoad, Sampler
from simulation.scenario import from_json

from cellsparse_common.config.settings import load
from cellsparse_common.logs import configure_logging
from cellsparse_common.rpc.server import serve
from cellsparse_orchestrator.application import Application
from cellsparse_orchestrator.home import own_home
from cellsparse_orchestrator.settings import OrchestratorSettings


def main() -> int:
    scenario, folder, port = from_json(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    settings = load(OrchestratorSettings)
    configure_logging("orchestrator", settings.log_level)
    database = DatabaseLoad()
    database.listen()
    kills = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    kills.connect(str(folder / "kills"))

    def kill(run_id: str, attempt: int) -> None:
        kills.send(json.dumps([run_id, attempt]).encode())

    with own_home(settings.home):
        application = Application(settings, SimulatedLauncher(scenario, port, kill, folder / "pods.json"))
        sampler = Sampler(folder / "samples.jsonl", database, application.registry)

        def stop() -> None:
            sampler.stop()
            application.stop()

        def start(address: str) -> None:
            sampler.start()
            application.start(address)

        return serve(
            name="orchestrator",
            settings=settings,
            add=application.add,
            started=start,
            drain=application.drain,
            stop=stop,
            registry=application.registry,
        )


if __name__ == "__main__":
    sys.exit(main())
