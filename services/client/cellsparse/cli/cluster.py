"""`cellsparse cluster check`: what a Kubernetes cluster lacks, before anything is installed there."""

from typing import Annotated

import typer
from rich.console import Console

from cellsparse.cli.exits import Exit
from cellsparse.cli.text import printable
from cellsparse.cluster_check import is_complete, judge, look

app = typer.Typer(help="Kubernetes clusters.", no_args_is_help=True)
_MARKS = {"ok": "[green]ok[/]     ", "note": "[yellow]note[/]   ", "missing": "[bold red]missing[/]"}


@app.callback()
def _cluster() -> None:
    """Kubernetes clusters."""


@app.command()
def check(
    namespace: Annotated[str, typer.Option(help="Where Cellsparse is to be installed; it need not exist.")] = "default",
    context: Annotated[str, typer.Option(help="Context of the kubeconfig.", show_default="the current one")] = "",
    kubeconfig: Annotated[
        str, typer.Option(metavar="FILE", help="The kubeconfig.", show_default="KUBECONFIG, or ~/.kube/config")
    ] = "",
    gpu: Annotated[bool, typer.Option("--gpu/--no-gpu", help="Whether trainings are to use GPUs.")] = True,
    queue: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A LocalQueue of Kueue's for trainings; repeatable."),
    ] = None,
) -> None:
    """Say what a cluster lacks for Cellsparse. Nothing is changed there. Ends with code 1 if something is missing."""
    findings = judge(look(namespace, kubeconfig=kubeconfig, context=context), gpu=gpu, queues=queue or [])
    console = Console(highlight=False, soft_wrap=True)
    for finding in findings:
        console.print(_MARKS[finding.level], end=" ")
        console.print(printable(finding.sentence), markup=False)
    if not is_complete(findings):
        raise typer.Exit(Exit.RUN_FAILED)
