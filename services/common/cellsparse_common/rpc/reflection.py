"""Server reflection under both of its names: `grpc.reflection.v1`, which newer tools ask for, and v1alpha.

grpcio has v1alpha only. Both have the same messages, so that one servicer answers both.
"""

from collections.abc import Sequence

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool
from grpc_reflection.v1alpha import reflection, reflection_pb2

V1_PACKAGE = "grpc.reflection.v1"
V1_NAME = f"{V1_PACKAGE}.ServerReflection"
_ALPHA_PACKAGE = "grpc.reflection.v1alpha"


def serve_reflection(services: Sequence[str], server: grpc.Server) -> None:
    """Let clients ask a server for its services and their messages.

    Args:
        services: Full names of the services.
        server: The server.
    """
    names = [*services, reflection.SERVICE_NAME, V1_NAME]
    _describe_v1()
    servicer = reflection.ReflectionServicer(names)
    reflection.enable_server_reflection(names, server)
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(V1_NAME, {"ServerReflectionInfo": handler}),),
    )


def _describe_v1() -> None:
    """Add the description of v1, for tools that ask for that of every service they see."""
    pool = descriptor_pool.Default()
    try:
        pool.FindServiceByName(V1_NAME)
    except KeyError:
        file = descriptor_pb2.FileDescriptorProto()
        reflection_pb2.DESCRIPTOR.CopyToProto(file)
        file.name, file.package = "grpc/reflection/v1/reflection.proto", V1_PACKAGE
        for message in file.message_type:
            for field in message.field:
                if field.type_name:  # set for messages only; setting it to "" is refused
                    field.type_name = field.type_name.replace(_ALPHA_PACKAGE, V1_PACKAGE)
        for method in file.service[0].method:
            method.input_type = method.input_type.replace(_ALPHA_PACKAGE, V1_PACKAGE)
            method.output_type = method.output_type.replace(_ALPHA_PACKAGE, V1_PACKAGE)
        pool.AddSerializedFile(file.SerializeToString())
