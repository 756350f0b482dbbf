"""GPUs that are none: a device plugin that advertises nvidia.com/gpu to a kubelet, for the scheduler to count."""

import threading
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
from support.limits import PATIENCE

RESOURCE = "nvidia.com/gpu"
SOCKET = "cellsparse-gpu.sock"


@contextmanager
def advertised_gpus(folder: Path, count: int) -> Iterator[None]:
    """Advertise GPUs meanwhile.

    Args:
        folder: The kubelet's folder "device-plugins".
        count: How many.
    """
    messages, stubs = grpc.protos_and_services("support/real_node/deviceplugin.proto")
    (folder / SOCKET).unlink(missing_ok=True)
    server = grpc.server(futures.ThreadPoolExecutor(4))
    plugin = _Plugin(messages, count)
    handlers = {
        "GetDevicePluginOptions": (grpc.unary_unary_rpc_method_handler, plugin.options, messages.Empty),
        "ListAndWatch": (grpc.unary_stream_rpc_method_handler, plugin.watch, messages.Empty),
        "Allocate": (grpc.unary_unary_rpc_method_handler, plugin.allocate, messages.AllocateRequest),
    }
    methods = {
        name: make(method, request_deserializer=asked.FromString, response_serializer=_bytes)
        for name, (make, method, asked) in handlers.items()
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("v1beta1.DevicePlugin", methods),))
    server.add_insecure_port(f"unix:{folder / SOCKET}")
    server.start()
    try:
        with grpc.insecure_channel(f"unix:{folder / 'kubelet.sock'}") as channel:
            request = messages.RegisterRequest(version="v1beta1", endpoint=SOCKET, resource_name=RESOURCE)
            stubs.RegistrationStub(channel).Register(request, wait_for_ready=True, timeout=PATIENCE)
        yield
    finally:
        plugin.ended.set()
        server.stop(None).wait(PATIENCE)


def _bytes(message: Any) -> bytes:
    return bytes(message.SerializeToString())


class _Plugin:
    """What the kubelet asks for."""

    def __init__(self, messages: Any, count: int) -> None:
        self._messages = messages
        self._count = count
        self.ended = threading.Event()

    def options(self, request: Any, context: grpc.ServicerContext) -> Any:
        return self._messages.DevicePluginOptions()

    def watch(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        devices = [self._messages.Device(ID=f"GPU-{number}", health="Healthy") for number in range(self._count)]
        yield self._messages.ListAndWatchResponse(devices=devices)
        while context.is_active() and not self.ended.wait(1):
            pass

    def allocate(self, request: Any, context: grpc.ServicerContext) -> Any:
        answers = [
            self._messages.ContainerAllocateResponse(envs={"NVIDIA_VISIBLE_DEVICES": ",".join(each.devices_ids)})
            for each in request.container_requests
        ]
        return self._messages.AllocateResponse(container_responses=answers)
