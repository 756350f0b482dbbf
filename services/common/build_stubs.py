"""Generates the `cellsparse_proto` package from `proto/`: run by `make proto` and by every build of this package."""

import re
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PROTO = HERE.parents[1] / "proto"
TARGET = HERE / "cellsparse_proto"


def generate() -> None:
    """Write `cellsparse_proto/v1/*_pb2*.py{,i}` from `proto/cellsparse/v1/*.proto`.

    protoc names Python modules after the proto's folder, `cellsparse.v1`, which is the client's import name; the
    imports between the stubs are therefore moved to `cellsparse_proto.v1`. The names on the wire stay as they are.

    Raises:
        SystemExit: protoc refused a file; its message is on standard error.
    """
    import grpc_tools
    from grpc_tools import protoc

    includes = [f"-I{PROTO}", f"-I{Path(grpc_tools.__file__).parent / '_proto'}"]
    files = sorted(str(path) for path in (PROTO / "cellsparse" / "v1").glob("*.proto"))
    staging = HERE / ".stubs"
    staging.mkdir(exist_ok=True)
    outs = [f"--python_out={staging}", f"--pyi_out={staging}", f"--grpc_python_out={staging}"]
    if protoc.main(["protoc", *includes, *outs, *files]) != 0:
        sys.exit("protoc failed: see the messages above")
    package = TARGET / "v1"
    package.mkdir(parents=True, exist_ok=True)
    for init in (TARGET / "__init__.py", package / "__init__.py"):
        init.write_text('"""Generated from proto/; do not edit."""\n')
    for stub in (staging / "cellsparse" / "v1").iterdir():
        text = re.sub(r"from cellsparse\.v1 import", "from cellsparse_proto.v1 import", stub.read_text())
        (package / stub.name).write_text(text)
        stub.unlink()
    for folder in (staging / "cellsparse" / "v1", staging / "cellsparse", staging):
        folder.rmdir()
    (TARGET / "py.typed").touch()


try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # `make proto` runs this file by itself, without the build tool.
    pass
else:

    class StubsBuildHook(BuildHookInterface):  # type: ignore[type-arg]
        """Makes packaging generate the stubs first."""

        def initialize(self, version: str, build_data: dict[str, Any]) -> None:
            """Generate the stubs before the files of the wheel are collected."""
            generate()


if __name__ == "__main__":
    generate()
