"""Health check of a server, for containers: `python -m cellsparse_common.rpc.health [host:port]`.

The exit code is 0 if the server answers SERVING within the deadline, else 1 with a sentence on standard error. Without
an address the server of this environment is checked (CELLSPARSE_HOST, CELLSPARSE_PORT), with TLS if it has it.
"""

import argparse
import socket
import ssl
import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from cellsparse_common.config.settings import ServerSettings, load
from cellsparse_common.config.tls import ClientTls, ServerTls
from cellsparse_common.errors import CellsparseError, InvalidArgument, Unavailable
from cellsparse_common.rpc.channel import open_channel

DEADLINE_SECONDS = 4.0
_LOOPBACK = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]", "::": "[::1]"}  # noqa: S104


def check(address: str, service: str = "", *, tls: ClientTls | None = None, seconds: float = DEADLINE_SECONDS) -> str:
    """Return the problem of a server as a sentence; empty if it answers SERVING.

    Args:
        address: host:port.
        service: Full name of a gRPC service; empty for the server as a whole.
        tls: Certificates; None for a server without TLS.
        seconds: Deadline, seconds.

    Raises:
        InvalidArgument: A file of `tls` cannot be read.
    """
    with open_channel(address, tls=tls) as channel:
        try:
            request = health_pb2.HealthCheckRequest(service=service)
            answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=seconds)
        except grpc.RpcError as error:
            return f"{address} answers {error.code().name if isinstance(error, grpc.Call) else error}."
    if answer.status != health_pb2.HealthCheckResponse.SERVING:
        return f"{address} is {health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)}."
    return ""


def own_address(settings: ServerSettings) -> str:
    """Return host:port of the server with these settings; loopback for a server on all interfaces.

    Raises:
        InvalidArgument: The server takes any free port.
    """
    if settings.port == 0:
        raise InvalidArgument("Which server? Give host:port, or set CELLSPARSE_PORT.")
    return f"{_LOOPBACK.get(settings.host, settings.host)}:{settings.port}"


def own_tls(settings: ServerSettings, address: str) -> ClientTls | None:
    """Return TLS that trusts exactly the certificate of the server with these settings; None without TLS.

    Raises:
        Unavailable: The server at `address` does not answer, or shows another certificate.
    """
    server = settings.server_tls()
    if server is None:
        return None
    name = _name_in_certificate(address, server)
    return ClientTls(ca=str(server.cert), cert=server.cert, key=server.key, server_name=name)


def _name_in_certificate(address: str, server: ServerTls) -> str:
    """Return a name in a server's certificate. gRPC requires one, and loopback is rarely among them."""
    context = ssl.create_default_context(cafile=str(server.cert))
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.check_hostname = False
    context.load_cert_chain(server.cert, server.key)
    context.set_alpn_protocols(["h2"])
    host, _, port = address.rpartition(":")
    try:
        with (
            socket.create_connection((host.strip("[]"), int(port)), DEADLINE_SECONDS) as plain,
            context.wrap_socket(plain) as connection,
        ):
            names = (connection.getpeercert() or {}).get("subjectAltName", ())
    except OSError as error:
        raise Unavailable(f"{address} shows no certificate from {server.cert}: {error}.") from None
    return str(names[0][1]) if names else ""


def main() -> None:
    """Check the server that the argument or the environment names."""
    parser = argparse.ArgumentParser(description="Ask a gRPC server for its health.")
    parser.add_argument("address", nargs="?", help="host:port; default: the server of this environment")
    parser.add_argument("--service", default="", help="full name of a gRPC service; default: the server as a whole")
    arguments = parser.parse_args()
    try:
        settings = load(ServerSettings)
        address = arguments.address or own_address(settings)
        tls = settings.client_tls() if arguments.address else own_tls(settings, address)
        problem = check(address, arguments.service, tls=tls)
    except CellsparseError as error:
        problem = error.message
    sys.exit(problem or 0)


if __name__ == "__main__":
    main()
