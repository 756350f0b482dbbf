"""What is deleted, who may call, and the state of the store."""

from collections.abc import Iterator
from typing import Literal

from cellsparse import access, deletion
from cellsparse.calls.base import Calls
from cellsparse_proto.v1 import access_pb2, admin_pb2, orchestrator_pb2, project_pb2

SCRUB_SECONDS = 7 * 86_400.0
"""Longest time of a scrub."""


class AdministrationCalls(Calls):
    """What is deleted, who may call, and the state of the store."""

    def scrub(self, *, max_mib_per_second: int = 50) -> Iterator[admin_pb2.ScrubResponse]:
        """Read every blob of the store and compare it with its hash; nothing is changed or deleted.

        Args:
            max_mib_per_second: Most that is read per second, MiB, 1 to 100,000.

        Yields:
            Progress, then a finding for each blob that is missing, rotten or unreferenced, and at last a summary.
        """
        request = admin_pb2.ScrubRequest(max_mib_per_second=max_mib_per_second)
        yield from self.connection.stream("Scrub", request, timeout=SCRUB_SECONDS)

    def collect(self, *, dry_run: bool = False) -> Iterator[admin_pb2.CollectResponse]:
        """Remove for good what was deleted longer ago than the grace time, and what nothing refers to any more.

        Args:
            dry_run: Remove nothing, but say what would be removed.

        Yields:
            Progress, and at last a summary.
        """
        return deletion.collect(self.connection, dry_run=dry_run)

    def delete(self, kind: deletion.Kind, thing_id: str) -> None:
        """Delete something that nothing needs. It can be undeleted until its grace time is over.

        Args:
            kind: "dataset", "run", "model", "study" or "project".
            thing_id: Its id.
        """
        deletion.delete(self.connection, kind, thing_id)

    def undelete(self, kind: deletion.Kind, thing_id: str) -> None:
        """Undelete something, as it was.

        Args:
            kind: "dataset", "run", "model", "study" or "project".
            thing_id: Its id.
        """
        deletion.undelete(self.connection, kind, thing_id)

    def deleted(self, kind: deletion.Kind | Literal[""] = "") -> Iterator[orchestrator_pb2.Deleted]:
        """Yield what is deleted and can be undeleted, newest deletion first.

        Args:
            kind: Only this kind; empty: all.
        """
        return deletion.listed(self.connection, kind)

    def caller(self) -> access_pb2.GetCallerResponse:
        """Return who the orchestrator takes the caller for."""
        answer: access_pb2.GetCallerResponse = self.connection.call("GetCaller", access_pb2.GetCallerRequest())
        return answer

    def create_token(
        self, name: str, role: str, *, project: str = "", days: int | None = None
    ) -> access_pb2.CreateTokenResponse:
        """Make a token. Its secret is in this answer only.

        Args:
            name: Whose it is, or what it is for.
            role: "reader", "annotator" or "admin".
            project: Id or name of the project that it is for; only an admin's token may do without.
            days: When it ends, days from now, 1 to 3650; None: never.
        """
        return access.create_token(self.connection, name, role, project, days)

    def tokens(self) -> Iterator[access_pb2.Token]:
        """Yield all tokens, newest first, with those that have ended."""
        return self.connection.pages("ListTokens", access_pb2.ListTokensRequest, "tokens")

    def revoke_token(self, token_id: str) -> access_pb2.Token:
        """Revoke a token for good."""
        answer: access_pb2.RevokeTokenResponse = self.connection.call(
            "RevokeToken", access_pb2.RevokeTokenRequest(token_id=token_id)
        )
        return answer.token

    def changes(self, *, token_id: str = "", project_id: str = "") -> Iterator[access_pb2.Change]:
        """Yield the calls that changed something, or tried to, newest first.

        Args:
            token_id: Of this token only.
            project_id: By tokens of this project only.
        """
        return access.changes(self.connection, token_id, project_id)

    def set_limits(
        self,
        project_id: str,
        *,
        bytes: int | None = None,  # noqa: A002 - as the proto's field
        items: int | None = None,
        runs: int | None = None,
        gpu_hours: float | None = None,
        checkpoint_days: int | None = None,
    ) -> project_pb2.Project:
        """Set the limits of a project in place of those before; for administrators.

        Args:
            project_id: The project.
            bytes: Most bytes of its datasets and images in the store; None: no limit.
            items: Most items of its datasets and images together; None: no limit.
            runs: Most runs that have not ended; None: no limit.
            gpu_hours: Most hours of its attempts, times their processes; None: no limit.
            checkpoint_days: Days after which a run that has ended keeps two checkpoints only; None: as the server says.

        Returns:
            The project, with limits and use.
        """
        limits = project_pb2.ProjectLimits(
            bytes=bytes, items=items, runs=runs, gpu_hours=gpu_hours, checkpoint_days=checkpoint_days
        )
        answer: admin_pb2.SetProjectLimitsResponse = self.connection.call(
            "SetProjectLimits", admin_pb2.SetProjectLimitsRequest(project_id=project_id, limits=limits)
        )
        return answer.project
