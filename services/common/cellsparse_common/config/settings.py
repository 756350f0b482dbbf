"""Process settings, read from CELLSPARSE_* variables or secret files and checked before anything starts."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BeforeValidator, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from cellsparse_common.config.limits import DEFAULT_MAX_PIXELS, LARGEST_MAX_PIXELS
from cellsparse_common.config.secret_files import secret_files
from cellsparse_common.config.tls import ClientTls, ServerTls
from cellsparse_common.errors import InvalidArgument

ENV_PREFIX = "CELLSPARSE_"
ORCHESTRATOR = "spiffe://cellsparse/orchestrator"
"""The orchestrator's name in its certificate, unless `tls_callers` of those that it calls says another one."""

S = TypeVar("S", bound=BaseSettings)

LogLevel = Annotated[
    Literal["DEBUG", "INFO", "WARNING", "ERROR"],
    BeforeValidator(lambda value: value.upper() if isinstance(value, str) else value),
]


def default_store_url() -> str:
    """Return the URL of the embedded store: a folder in the user's home, created by the first write."""
    return (Path.home() / ".cellsparse" / "store").as_uri()


class StoreSettings(BaseSettings):
    """Settings of the object store. An empty variable counts as not set."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_ignore_empty=True, extra="ignore", frozen=True, use_attribute_docstrings=True
    )

    secrets_dir: Path | None = None
    """Folder whose files are settings by name, such as `cellsparse_s3_secret_key`; a variable that is set wins."""

    store_url: str = Field(default_factory=default_store_url)
    """``file:///absolute/folder``, or ``s3://bucket`` or ``s3://bucket/prefix``."""

    s3_endpoint: str = "s3.amazonaws.com"
    """host or host:port of the S3 server, without a scheme."""

    s3_secure: bool = True
    """Speak TLS to the S3 server."""

    s3_region: str = Field(default="us-east-1", pattern=r"^[A-Za-z0-9_-]{1,64}$")
    """Region that requests are signed for."""

    s3_access_key: str = ""
    """Access key; empty for anonymous access. Requires the secret key."""

    s3_secret_key: SecretStr = SecretStr("")
    """Secret key; never logged."""

    s3_credentials_file: Path | None = None
    """File with temporary credentials, in place of both keys; read again when it changes. Trainers set it for training
    processes whose orchestrator hands out credentials (CELLSPARSE_STS_ENDPOINT)."""

    s3_path_style: bool = True
    """Address objects as endpoint/bucket/key (MinIO and most servers); off: bucket.endpoint/key."""

    s3_ca_bundle: Path | None = None
    """PEM file of the certificate authorities to trust for the S3 server; without it the system's."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the hook's signature is given
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read given values, then variables, then the folder of secrets (see `BaseSettings`)."""
        return init_settings, env_settings, *secret_files(settings_cls, init_settings, env_settings)

    @model_validator(mode="after")
    def _keys_come_in_pairs(self) -> Self:
        given = {
            "s3_access_key": bool(self.s3_access_key),
            "s3_secret_key": bool(self.s3_secret_key.get_secret_value()),
        }
        missing = [f"{ENV_PREFIX}{name}" for name, there in given.items() if not there]
        if len(missing) == 1:
            files = f" {self.secrets_dir} has no file {missing[0].lower()}." if self.secrets_dir else ""
            raise ValueError(
                f"{ENV_PREFIX}S3_ACCESS_KEY and {ENV_PREFIX}S3_SECRET_KEY must be given together, or neither.{files}"
            )
        return self


class ServerSettings(StoreSettings):
    """Settings of every server. Services subclass it to add their own."""

    host: str = Field(default="127.0.0.1", min_length=1)
    """Address to listen on; 0.0.0.0 or [::] for all interfaces."""

    port: int = Field(default=0, ge=0, le=65535)
    """TCP port to listen on, 0 to 65535; 0 takes a free one."""

    address_file: Path | None = None
    """File that receives the bound host:port once the server is ready. Tells the caller which port 0 became."""

    metrics_port: int = Field(default=0, ge=0, le=65535)
    """TCP port that answers Prometheus on /metrics and probes on /health, 0 to 65535; 0 is off. Without TLS, on the
    same host address."""

    tls_cert: Path | None = None
    """PEM file with this server's certificate, followed by intermediate ones. Requires the key. The server then accepts
    TLS only. Read again when it changes."""

    tls_key: Path | None = None
    """PEM file with the certificate's private key, not encrypted."""

    tls_client_ca: Path | None = None
    """PEM file of authorities. Only clients with a certificate signed by one of them may connect. Not set: all may."""

    tls_callers: str = ""
    """Names separated by commas, each a DNS name or a URI. A caller's certificate must hold one of them among its
    subject alternative names; health checks need none. Requires the authorities of clients. Not set: sparsifier and
    trainers answer `spiffe://cellsparse/orchestrator` alone, the orchestrator every certificate of its authorities."""

    tls_ca: str = ""
    """PEM file of the authorities that sign the other services' certificates, or `system` for public ones. Set: other
    services are called with TLS, and receive this server's certificate if they require one."""

    tls_server_name: str = ""
    """The name in the certificates of services that are called by IP address, as pods of training Jobs are; not set:
    the address itself."""

    insecure: bool = False
    """Listen beyond loopback even without TLS, or without asking who calls: for networks on which everybody may do
    everything, or where something in front of the server takes care of both."""

    max_message_mib: int = Field(default=128, ge=1, le=2047)
    """Largest gRPC message to receive or send, MiB, 1 to 2047."""

    max_pixels: int = Field(default=DEFAULT_MAX_PIXELS, ge=1, le=LARGEST_MAX_PIXELS)
    """Largest image to decode, pixels, 1 to 2**31."""

    max_file_mib: int = Field(default=60, ge=1, le=2047)
    """Largest uploaded file, MiB, 1 to 2047. Between services it is sent in one message."""

    max_decoded_mib: int = Field(default=2048, ge=64, le=1_048_576)
    """Most MiB that the images of all calls together may take decoded at the same time, 64 to 1,048,576. A call that
    would exceed it waits for a moment, and is then refused until others are done. Images below 4 MiB do not count."""

    workers: int = Field(default=32, ge=1, le=1024)
    """Calls that are handled at once, 1 to 1024. Each open stream counts as one. One connection may hold three quarters
    of them. Health checks, status and cancelling do not count."""

    drain_seconds: float = Field(default=10, ge=0, le=3600)
    """Time for running calls to finish after SIGTERM, seconds, 0 to 3600."""

    log_level: LogLevel = "INFO"
    """Least severe log level to print: DEBUG, INFO, WARNING or ERROR."""

    owner_pid: int | None = Field(default=None, ge=1)
    """Process id of the owner. The server stops when that process has ended. For servers started by another one."""

    exit_unused_seconds: float | None = Field(default=None, gt=0, le=604_800)
    """Stop after this many seconds without a call and without running work, above 0 to 604,800. For servers created for
    a single task. Not set: never."""

    @model_validator(mode="after")
    def _certificate_and_key_come_in_pairs(self) -> Self:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError(f"{ENV_PREFIX}TLS_CERT and {ENV_PREFIX}TLS_KEY must be given together, or neither.")
        if self.tls_client_ca is not None and self.tls_cert is None:
            raise ValueError(f"{ENV_PREFIX}TLS_CLIENT_CA needs {ENV_PREFIX}TLS_CERT and {ENV_PREFIX}TLS_KEY.")
        if "tls_callers" in self.model_fields_set and self.tls_client_ca is None:
            raise ValueError(f"{ENV_PREFIX}TLS_CALLERS needs {ENV_PREFIX}TLS_CLIENT_CA.")
        return self

    def server_tls(self) -> ServerTls | None:
        """Return the certificates of this server, None for a server without TLS."""
        if self.tls_cert is None or self.tls_key is None:
            return None
        return ServerTls(cert=self.tls_cert, key=self.tls_key, client_ca=self.tls_client_ca)

    def callers(self) -> tuple[str, ...]:
        """Return the names of which a caller's certificate must hold one; empty: nothing is asked of it."""
        if self.tls_client_ca is None:
            return ()
        return tuple(name.strip() for name in self.tls_callers.split(",") if name.strip())

    def client_tls(self) -> ClientTls | None:
        """Return how this server calls other services, None for calls without TLS."""
        if not self.tls_ca:
            return None
        return ClientTls(ca=self.tls_ca, cert=self.tls_cert, key=self.tls_key, server_name=self.tls_server_name)


class InnerServerSettings(ServerSettings):
    """Settings of a server that only the orchestrator calls."""

    tls_callers: str = ORCHESTRATOR
    """Names separated by commas, each a DNS name or a URI. A caller's certificate must hold one of them among its
    subject alternative names; health checks need none. Counts where `tls_client_ca` is set."""


def load(cls: type[S], **values: Any) -> S:
    """Read settings from the environment, and from the folder that it may name for secrets.

    Args:
        cls: The settings to read.
        values: Fields that take precedence over their variables.

    Raises:
        InvalidArgument: A sentence for every variable at fault, with its value (unless secret) and what is allowed.
    """
    try:
        return cls(**values)
    except ValidationError as error:
        problems = [_sentence(cls, problem) for problem in error.errors(include_url=False)]
        raise InvalidArgument(" ".join(problems)) from None
    except SettingsError as error:
        raise InvalidArgument(f"The settings cannot be read: {error}.") from None


def _sentence(cls: type[BaseSettings], problem: Any) -> str:
    location = problem["loc"]
    message = problem["msg"].removeprefix("Value error, ")
    if not location:
        return str(message)
    field = cls.model_fields.get(str(location[0]))
    variable = str(cls.model_config.get("env_prefix", "")) + str(location[0]).upper()
    secret = field is not None and "SecretStr" in str(field.annotation)
    value = "set" if secret else repr(problem["input"])
    return f"{variable} is {value}: {message[:1].lower()}{message[1:]}."
