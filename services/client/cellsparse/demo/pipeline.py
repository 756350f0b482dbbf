"""The demo from start to end: services, dataset, sparse labels, three runs, scores, pictures."""

import os
import shutil
import signal
import time
from pathlib import Path

from rich.console import Console

from cellsparse import enum_names, local_services, training_settings
from cellsparse.cli import render
from cellsparse.cli.exits import Exit
from cellsparse.cli.follow import RunView
from cellsparse.cli.output import stdout_console
from cellsparse.client import Client
from cellsparse.demo.results import GOOD_F1, Result, table, write_report
from cellsparse.demo.source import demo_items
from cellsparse.errors import CellsparseError, InvalidArgument
from cellsparse.items import Item
from cellsparse.runs import Run
from cellsparse_common.cpus import usable_cpus
from cellsparse_proto.v1 import common_pb2, dataset_pb2, trainer_pb2

K = 4
DISTANCE = 10
SEED = 20230613
MOST_PICTURES = 8
MARKER = ".cellsparse-demo"
GPU_DEVICE = Path("/dev/nvidiactl")
"""Exists where NVIDIA's driver is loaded."""


def demo(data: Path | None, out: Path, *, keep_running: bool) -> int:
    """Run the demo and stop everything that it started.

    Args:
        data: The user's folder; None for the nuclei of stardist.
        out: Folder for results; its `home` is the home folder of the demo's own services.
        keep_running: Leave the services running.

    Returns:
        0, or 1 if a run failed.

    Raises:
        InvalidArgument: The folder cannot be used.
        CellsparseError: The services did not start, or a call failed.
    """
    begun = time.monotonic()
    console = stdout_console()
    items = demo_items(data)
    home = _fresh_home(out)
    # Each backend trains once: the frameworks of the later ones load while the first one trains.
    os.environ.setdefault("CELLSPARSE_WARM_START", "true")
    _share_cores(len(training_settings.usual_backends()))
    try:
        _, record, _ = local_services.up(home)
        console.print(f"services are up: {record.address}")
        with Client(record.address) as client:
            return _work(client, items, out, console, begun)
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)  # an impatient second Ctrl-C must not leave processes behind
        if keep_running:
            console.print(f"the services keep running; CELLSPARSE_HOME={home} cellsparse down stops them")
        else:
            local_services.down(home)


def _share_cores(models: int) -> None:
    """Without a GPU, train all models at once, each on its share of the cores: small crops keep few cores busy."""
    cores = usable_cpus()
    if cores < 2 or GPU_DEVICE.exists():
        return
    os.environ.setdefault("CELLSPARSE_SLOTS", str(models))
    for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        os.environ.setdefault(name, str(max(1, cores // models)))


def _work(client: Client, items: list[Item], out: Path, console: Console, begun: float) -> int:
    dense = client.create_dataset("demo", items)
    sparse = client.sparsify(dense.id, mode="minmax", k=K, background="shifted", distance=DISTANCE)
    console.print(render.dataset_table([sparse, dense]))
    # Runs are queued together. A model is scored while the next ones train.
    queue = {
        backend: client.train(sparse.id, backend, name=f"demo {backend}", preset="fast", seed=SEED)
        for backend in training_settings.usual_backends()
    }
    results, failed = [], False
    for backend, handle in queue.items():
        try:
            result = _follow(client, backend, handle, dense, console)
        except CellsparseError as error:
            console.print(f"error: {backend}: {error.message}", style="red", markup=False)
            failed = True
            continue
        results.append(result)
    written = [path for result in results for path in _pictures(client, result, sparse, dense, out)]
    if results:
        from cellsparse.demo.plots import write_plots

        written += write_plots(out, results)
    write_report(out / "report.json", results, sparse, time.monotonic() - begun)
    console.print(table(results, sparse))
    for result in results:
        if result.f1 < GOOD_F1:
            console.print(
                f"warning: {result.run.backend} reached F1 {result.f1:.2f}, below {GOOD_F1:.2f}", style="yellow"
            )
    console.print(f"{out / 'report.json'} and {len(written)} pictures in {render.duration(time.monotonic() - begun)}")
    return Exit.RUN_FAILED if failed else Exit.OK


def _follow(client: Client, backend: str, handle: Run, dense: dataset_pb2.Dataset, console: Console) -> Result:
    """Show one run until it has ended, and score its model on the dense test split."""
    events: list[trainer_pb2.TrainingEvent] = []
    with RunView(console, handle.info(), backend).shown() as view:
        for event in client.watch(handle.id, on_lost=view.lost.say, on_back=view.lost.over):
            view.show(event)
            if event.HasField("training"):
                events.append(event.training)
    run = handle.wait()
    report = client.evaluate(handle.id, dense.id, "test")
    result = Result(run=run, events=events, report=report)
    state = enum_names.name(common_pb2.RunState.DESCRIPTOR, run.state)
    console.print(f"{backend} {state} after {render.duration(result.seconds)}, F1 {result.f1:.2f} on the test tiles")
    return result


def _pictures(
    client: Client, result: Result, sparse: dataset_pb2.Dataset, dense: dataset_pb2.Dataset, out: Path
) -> list[Path]:
    """Predict the test items and draw them beside the training labels."""
    from cellsparse.demo.overlays import write_overlay

    first = next(
        item for item in client.dataset_items(sparse.id) if item.split == common_pb2.SPLIT_TRAIN and item.cells
    )
    trained = client.dataset_item(sparse.id, first.name)
    tests = [item.name for item in client.dataset_items(dense.id) if item.split == common_pb2.SPLIT_TEST]
    written = []
    for name in tests[:MOST_PICTURES]:
        test = client.dataset_item(dense.id, name)
        predicted = client.predict(result.run.id, test.image)
        path = out / f"{result.run.backend}-{name}.png"
        title = f"{result.run.backend} after {render.duration(result.seconds)} from {sparse.train_cells} labelled cells"
        written.append(write_overlay(path, title=title, trained=trained, test=test, predicted=predicted))
    return written


def _fresh_home(out: Path) -> Path:
    """Return an empty home folder. The remains of an earlier demo are removed, anything else is kept.

    Raises:
        InvalidArgument: The folder exists and was not made by a demo.
    """
    home = out / "home"
    if home.exists() and not (home / MARKER).exists():
        raise InvalidArgument(f"{home} is there and was not made by the demo; give another --out.")
    if home.exists():
        local_services.down(home)
        shutil.rmtree(home)
    home.mkdir(parents=True)
    (home / MARKER).touch()
    return home
