"""Folders of searches in the home folder, each with one driver at a time."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from cellsparse.errors import AlreadyExists, CellsparseError, FailedPrecondition, NotFound, StorageError
from cellsparse.home import home_dir
from cellsparse.search.plan import NAME, SearchPlan, from_json
from cellsparse.targets import make_home, opened
from cellsparse_common.files import replace_file

PLAN = "plan.json"
TRIALS = "trials.db"


def folder_of(name: str) -> Path:
    """Return a search's folder."""
    return home_dir() / "searches" / name


def names() -> list[str]:
    """Return the names of the searches there are."""
    try:
        return sorted(path.parent.name for path in (home_dir() / "searches").glob(f"*/{PLAN}"))
    except OSError:  # there can be none
        return []


def load_plan(name: str) -> SearchPlan:
    """Return the plan of an existing search.

    Raises:
        NotFound: There is no such search.
        StorageError: Its plan is damaged.
    """
    path = folder_of(name) / PLAN
    try:
        if NAME.fullmatch(name):
            return from_json(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        pass  # the same as a name that no search can have
    except (OSError, ValueError, KeyError, TypeError, CellsparseError) as error:
        raise StorageError(f"{path} cannot be read: {error}.") from error
    listed = ", ".join(names()) or "none"
    raise NotFound(f"No search is called {name!r}; there are: {listed}.")


@contextmanager
def begun(plan: SearchPlan) -> Iterator[SearchPlan]:
    """Start a search, or resume the one of that name, as its only driver while the context lasts.

    Yields:
        The plan with the token of the first start and the number of trials of this one.

    Raises:
        FailedPrecondition: Another process drives it.
        AlreadyExists: A search of that name has another plan.
    """
    folder = folder_of(plan.name)
    make_home(folder)
    with opened(folder / "lock") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # ends with the process, however that ends
        except OSError:
            raise FailedPrecondition(f"Another process drives search {plan.name}.") from None
        if (folder / PLAN).exists():
            known = load_plan(plan.name)
            different = plan.differences(known)
            if different:
                raise AlreadyExists(
                    f"Search {plan.name} was started with other values of {', '.join(different)}; choose another name, "
                    "or resume it as it was started (--resume).",
                    "name",
                )
            plan = replace(known, trials=plan.trials)
        replace_file(folder / PLAN, plan.to_json())
        yield plan
