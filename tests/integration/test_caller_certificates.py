"""Who may call the services behind the orchestrator: real servers, certificates of several roles and authorities."""

import shutil

import grpc
import pytest
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from support.certificates import Authority
from support.limits import PATIENCE
from support.orchestrator import Orchestrator, state_names, until
from support.server_process import ServerProcess

from cellsparse_common.config.settings import ORCHESTRATOR, InnerServerSettings, ServerSettings, load
from cellsparse_common.config.tls import ClientTls
from cellsparse_common.errors import InvalidArgument
from cellsparse_common.rpc.channel import open_channel
from cellsparse_common.rpc.health import check
from cellsparse_gateway.calls import Orchestrator as GatewayCalls
from cellsparse_proto.v1 import orchestrator_pb2, sparsifier_pb2, sparsifier_pb2_grpc, trainer_pb2, trainer_pb2_grpc

NAME = "lab-orchestrator.imaging.svc"
TRAINER, SPARSIFIER = ["-m", "support.cellsparse_fake"], ["-m", "cellsparse_sparsifier"]


class Certificates:
    """Certificates of one authority in a folder.

    Attributes:
        ca: The authority's own.
    """

    def __init__(self, folder):
        self._folder = folder
        self._authority = Authority(folder / "authority")
        self.ca = str(self._authority.certificate)

    def client(self, name, names, days=2):
        """Return how somebody with these names calls."""
        cert, key = self._folder / f"{name}.crt", self._folder / f"{name}.key"
        self._authority.sign(cert, key, names, days)
        return ClientTls(ca=self.ca, cert=cert, key=key)

    def server(self, name, names="IP:127.0.0.1"):
        """Return a server's variables."""
        made = self.client(name, f"IP:127.0.0.1, {names}")
        return {
            "CELLSPARSE_TLS_CERT": str(made.cert),
            "CELLSPARSE_TLS_KEY": str(made.key),
            "CELLSPARSE_TLS_CLIENT_CA": self.ca,
            "CELLSPARSE_TLS_CA": self.ca,
        }


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def servers(certificates, tmp_path_factory):
    """Address of a trainer, which knows the orchestrator by the usual name, and of a sparsifier that does not."""
    folder = tmp_path_factory.mktemp("servers")
    for name in ("trainer", "sparsifier"):
        (folder / name).mkdir()
    own = certificates.server("sparsifier") | {"CELLSPARSE_TLS_CALLERS": f"spiffe://other/one, {NAME}"}
    with (
        ServerProcess(TRAINER, folder / "store", folder / "trainer", **certificates.server("trainer")) as trainer,
        ServerProcess(SPARSIFIER, folder / "store", folder / "sparsifier", **own) as sparsifier,
    ):
        yield trainer.address, sparsifier.address


def describe(address, tls):
    with open_channel(address, tls=tls) as channel:
        stub = trainer_pb2_grpc.TrainerServiceStub(channel)
        return stub.Describe(trainer_pb2.DescribeRequest(), timeout=PATIENCE)


def sparsify(address, tls):
    with open_channel(address, tls=tls) as channel:
        stub = sparsifier_pb2_grpc.SparsifierServiceStub(channel)
        return stub.Sparsify(sparsifier_pb2.SparsifyRequest(), timeout=PATIENCE)


def reflect(address, tls):
    with open_channel(address, tls=tls) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        return next(stub.ServerReflectionInfo(iter([request]), timeout=PATIENCE))


def refusal(call, *arguments):
    with pytest.raises(grpc.RpcError) as caught:
        call(*arguments)
    return caught.value.code(), caught.value.details()


def test_the_orchestrator_is_known_by_a_name_in_its_certificate(servers, certificates):
    trainer, sparsifier = servers
    assert describe(trainer, certificates.client("usual", f"DNS:somewhere, URI:{ORCHESTRATOR}")).backend == "unet"
    code, _ = refusal(sparsify, sparsifier, certificates.client("named", f"DNS:{NAME}"))
    assert code == grpc.StatusCode.INVALID_ARGUMENT, "the empty request was not reached"


@pytest.mark.parametrize(
    "names",
    [
        "URI:spiffe://cellsparse/trainer",
        "URI:spiffe://cellsparse/orchestrator/more",
        "DNS:orchestrator",
        "DNS:*.imaging.svc",
        f"DNS:{NAME}",
        "IP:127.0.0.1",
    ],
)
def test_a_certificate_of_another_role_opens_nothing_but_health(servers, certificates, names):
    trainer = servers[0]
    tls = certificates.client("other", names)
    assert check(trainer, tls=tls, seconds=PATIENCE) == ""
    code, details = refusal(describe, trainer, tls)
    assert code == grpc.StatusCode.PERMISSION_DENIED
    shown = names.partition(":")[2]
    assert details == f"The caller's certificate is for {shown}; this service answers one for {ORCHESTRATOR}."
    assert refusal(reflect, trainer, tls)[0] == grpc.StatusCode.PERMISSION_DENIED


def test_the_usual_name_does_not_open_a_service_that_expects_another_one(servers, certificates):
    code, details = refusal(sparsify, servers[1], certificates.client("usual", f"URI:{ORCHESTRATOR}"))
    assert code == grpc.StatusCode.PERMISSION_DENIED
    assert details.endswith(f"this service answers one for spiffe://other/one or {NAME}.")


def test_without_a_valid_certificate_there_is_no_connection(servers, certificates, tmp_path):
    """Nobody answers such a caller: TLS ends before there is a call."""
    stranger = Certificates(tmp_path).client("own", f"URI:{ORCHESTRATOR}")
    for tls in (
        None,
        ClientTls(ca=certificates.ca),
        ClientTls(ca=certificates.ca, cert=stranger.cert, key=stranger.key),
        certificates.client("ended", f"URI:{ORCHESTRATOR}", days=-1),
    ):
        assert refusal(describe, servers[0], tls)[0] == grpc.StatusCode.UNAVAILABLE
        assert check(servers[0], tls=tls, seconds=PATIENCE) != ""


def test_each_service_with_a_certificate_of_its_own(certificates, tmp_path):
    """The whole system: clients show theirs, and the certificate of one service does not open another one."""
    store = tmp_path / "home" / "store"
    for name in ("trainer", "sparsifier"):
        (tmp_path / name).mkdir()
    orchestrators = certificates.server("orchestrator", f"URI:{ORCHESTRATOR}")
    gateway = certificates.client("gateway", "URI:spiffe://cellsparse/gateway")
    with (
        ServerProcess(TRAINER, store, tmp_path / "trainer", **certificates.server("trainer")) as trainer,
        ServerProcess(SPARSIFIER, store, tmp_path / "sparsifier", **certificates.server("sparsifier")) as sparsifier,
    ):
        addresses = {
            "CELLSPARSE_LAUNCHER": "static",
            "CELLSPARSE_TRAINERS": f"unet={trainer.address}",
            "CELLSPARSE_SPARSIFIER": sparsifier.address,
        }
        with Orchestrator(tmp_path / "home", tls=gateway, **orchestrators, **addresses) as orchestrator:
            orchestrator.healthy("sparsifier")
            orchestrator.healthy("unet")
            run_id = orchestrator.train(orchestrator.upload().id, steps=3).id
            assert state_names(orchestrator.watch(run_id))[-1] == "SUCCEEDED"
        with Orchestrator(tmp_path / "home", tls=gateway, **certificates.server("trainer"), **addresses) as wrong:
            said = until(lambda: (text := wrong.service("unet").message) and "refuses" in text and text)
            assert "refuses the orchestrator: The caller's certificate is for 127.0.0.1" in said


def test_a_gateway_shows_a_certificate_that_was_replaced(certificates, tmp_path):
    """It keeps its connection for long: an ended certificate must not stay in use after a new one is there."""
    settings = {**certificates.server("own"), "CELLSPARSE_LAUNCHER": "static"}
    with Orchestrator(tmp_path / "home", tls=certificates.client("me", "DNS:me"), **settings) as it:
        tls = certificates.client("gateway", "URI:spiffe://cellsparse/gateway", days=-1)
        calls = GatewayCalls(it.address, tmp_path, tls)
        request = orchestrator_pb2.ListRunsRequest()
        assert refusal(lambda: calls.runs.ListRuns(request, timeout=PATIENCE))[0] == grpc.StatusCode.UNAVAILABLE
        new = certificates.client("new", "URI:spiffe://cellsparse/gateway")
        shutil.move(new.cert, tls.cert)
        shutil.move(new.key, tls.key)
        assert not calls.runs.ListRuns(request, timeout=PATIENCE).runs
        calls.close()


def test_names_of_callers_need_authorities():
    with pytest.raises(InvalidArgument, match="CELLSPARSE_TLS_CALLERS needs CELLSPARSE_TLS_CLIENT_CA"):
        load(ServerSettings, tls_callers="x")
    assert load(InnerServerSettings).callers() == ()
