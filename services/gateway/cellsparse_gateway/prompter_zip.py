"""A prompter from a zip of its two files."""

from collections.abc import Iterator
from typing import IO

from cellsparse_common.errors import InvalidArgument
from cellsparse_gateway.calls import WORK_SECONDS, Orchestrator
from cellsparse_gateway.zip_files import open_zip, read_member
from cellsparse_proto.v1 import prompter_pb2

ENCODER, DECODER = "encoder.onnx", "decoder.onnx"


def upload_prompter(
    orchestrator: Orchestrator, header: prompter_pb2.AddPrompterHeader, file: IO[bytes]
) -> prompter_pb2.Prompter:
    """Add a prompter.

    Raises:
        InvalidArgument: The zip is broken, or lacks a file.
        grpc.RpcError: The orchestrator refused it.
    """
    make = prompter_pb2.AddPrompterRequest
    failure: list[InvalidArgument] = []
    with open_zip(file) as archive:

        def messages() -> Iterator[prompter_pb2.AddPrompterRequest]:
            yield make(header=header)
            end = prompter_pb2.AddPrompterEnd()
            try:
                for chunk in read_member(archive, ENCODER):
                    end.encoder_size += len(chunk)
                    yield make(encoder=chunk)
                for chunk in read_member(archive, DECODER):
                    end.decoder_size += len(chunk)
                    yield make(decoder=chunk)
            except InvalidArgument as error:
                failure.append(error)
                yield make()  # without its end the orchestrator refuses the upload
                return
            yield make(end=end)

        try:
            answer: prompter_pb2.AddPrompterResponse = orchestrator.prompters.AddPrompter(
                messages(), timeout=WORK_SECONDS
            )
        except Exception:
            if failure:
                raise failure[0] from None
            raise
    return answer.prompter
