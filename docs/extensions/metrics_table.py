"""The table of Prometheus metrics, from the docstring of the module that defines them."""

from cellsparse_common.rpc import metrics as source


def metrics() -> str:
    """Return the table of all metrics."""
    return "\n".join(line for line in (source.__doc__ or "").splitlines() if line.startswith("|"))
