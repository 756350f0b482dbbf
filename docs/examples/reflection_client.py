"""Lists models and their backends with nothing but grpcio and grpcio-reflection: no package of Cellsparse, no stubs.

Usage: python docs/examples/reflection_client.py HOST:PORT
"""

import sys

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase


def call(channel: grpc.Channel, service: str, method: str, **fields: object) -> object:
    """Call a unary method by name, with the request's fields by name."""
    pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
    found = pool.FindServiceByName(service).methods_by_name[method]
    request = GetMessageClass(found.input_type)(**fields)
    answer = GetMessageClass(found.output_type)
    return channel.unary_unary(f"/{service}/{method}", type(request).SerializeToString, answer.FromString)(request)


if __name__ == "__main__":
    with grpc.insecure_channel(sys.argv[1]) as connection:
        status = call(connection, "cellsparse.v1.OrchestratorService", "GetStatus")
        print("services:", ", ".join(service.name for service in status.services))
        models = call(connection, "cellsparse.v1.OrchestratorService", "ListModels", backend="")
        for model in models.models:
            print(model.id, model.backend, model.name)
