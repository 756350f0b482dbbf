"""Projects of the page: images, suggestions, and the models that propose outlines."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from cellsparse import project_images, prompters, suggestions
from cellsparse.calls.base import Calls
from cellsparse.items import Content, Stored
from cellsparse.suggestions import Suggestions
from cellsparse_proto.v1 import project_pb2, prompter_pb2


class ProjectCalls(Calls):
    """Projects of the page: images, suggestions, and the models that propose outlines."""

    def create_project(self, name: str) -> project_pb2.Project:
        """Make a project.

        Args:
            name: For people, at most 100 characters.
        """
        answer: project_pb2.CreateProjectResponse = self.connection.call(
            "CreateProject", project_pb2.CreateProjectRequest(name=name)
        )
        return answer.project

    def projects(self) -> Iterator[project_pb2.Project]:
        """Yield all projects of the page, newest first."""
        return suggestions.projects(self.connection)

    def project(self, project_id: str) -> project_pb2.Project:
        """Return one project."""
        return suggestions.project(self.connection, project_id)

    def project_images(self, project_id: str) -> Iterator[project_pb2.ProjectImage]:
        """Yield a project's images in the order in which they were added."""
        return suggestions.project_images(self.connection, project_id)

    def add_project_image(
        self,
        project: str,
        image: "Content | Stored",
        *,
        name: str = "",
        axes: str = "",
        spacing: Sequence[float] = (),
        channels: Sequence[str] = (),
        series: int | None = None,
        time: int | None = None,
        z: int | None = None,
    ) -> project_pb2.ProjectImage:
        """Add an image to a project of the page.

        CZI, LIF and ND2 files (with `cellsparse[vendor]`) and OME-Zarr folders are read on this machine.

        Args:
            project: Project id.
            image: Path, content of a file, array, or where it is in the orchestrator's store (`Stored`).
            name: Name for people; empty: the file's. A number is added if the project has the name already.
            axes: Axes of the image, where the file does not name them (see `Item.axes`).
            spacing: Micrometres per pixel along y and x, of a stack along z, y and x; empty: from the file.
            channels: Names of the channels in their order; empty: from the file.
            series: Which image of a file that holds several, from 0.
            time: Which time point, from 0.
            z: Which plane of a stack, from 0; not given: the whole stack.
        """
        return project_images.add(
            self.connection,
            project,
            image,
            name=name,
            axes=axes,
            spacing=spacing,
            channels=channels,
            series=series,
            time=time,
            z=z,
        )

    def suggest(
        self,
        project: str = "",
        count: int = 8,
        *,
        dataset: str = "",
        method: str = "auto",
        models: Sequence[str] = (),
        max_images: int = 0,
        backgrounds: int | None = None,
        seed: int = 0,
    ) -> Suggestions:
        """Return which cells and spots of background of a project or a dataset to mark next, each with a reason.

        Args:
            project: Project id.
            count: Most cells, at most 3 of an image, of a stack 3 of a plane.
            dataset: Id of a dataset whose training items are looked at, in place of a project.
            method: "auto", "random", "minmax", "typical" or "errors" (see `SuggestionMethod` in suggestion.proto).
            models: Ids of models that predict; empty: the newest model of the project or dataset, for auto and errors.
            max_images: Most images to look at; 0: 64, with a model 32.
            backgrounds: Most spots of background; not given: one for every four cells.
            seed: Decides which images are looked at where there are more.
        """
        return suggestions.suggest(
            self.connection,
            project,
            dataset,
            count=count,
            method=method,
            models=models,
            max_images=max_images,
            backgrounds=backgrounds,
            seed=seed,
        )

    def add_prompter(
        self,
        name: str,
        encoder: str | Path,
        decoder: str | Path,
        *,
        licence: str,
        sha256: tuple[str, str] | None = None,
    ) -> prompter_pb2.Prompter:
        """Add a Segment Anything model for prompts in the page. Nothing is stored unless both files are ONNX.

        Args:
            name: Small letters, digits and dashes.
            encoder: ONNX file, or an https: or s3: URL of one.
            decoder: Likewise.
            licence: Licence of the weights, shown beside what they propose.
            sha256: SHA-256 of encoder and decoder, hex; needed for URLs.
        """
        return prompters.add(self.connection, name, encoder, decoder, licence=licence, sha256=sha256)

    def prompters(self) -> Iterator[prompter_pb2.Prompter]:
        """Yield the prompters that users added, newest first."""
        return prompters.listed(self.connection)

    def remove_prompter(self, name: str) -> None:
        """Delete a prompter with its weights."""
        prompters.remove(self.connection, name)
