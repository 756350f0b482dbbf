"""The gateway's settings, from environment variables with the prefix CELLSPARSE_GATEWAY_."""

import os
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from cellsparse_common.config.exposure import is_safe_url
from cellsparse_common.config.settings import LogLevel
from cellsparse_common.config.tls import ClientTls
from cellsparse_gateway.oidc import Registration, redirect_url

DEFAULT_PORT = 8000


def default_home() -> Path:
    """Return the home folder of the local services: CELLSPARSE_HOME, or ~/.cellsparse."""
    given = os.environ.get("CELLSPARSE_HOME")
    return Path(given).expanduser().absolute() if given else Path.home() / ".cellsparse"


class GatewaySettings(BaseSettings):
    """Where the gateway listens, where the orchestrator is, and how much it takes. An empty variable is not set."""

    model_config = SettingsConfigDict(
        env_prefix="CELLSPARSE_GATEWAY_",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        populate_by_name=True,
        use_attribute_docstrings=True,
    )

    host: str = Field(default="127.0.0.1", min_length=1)
    """Address to listen on; 0.0.0.0 or :: for all interfaces."""
    port: int = Field(default=DEFAULT_PORT, ge=0, le=65535)
    """TCP port; 0 takes a free one."""
    hosts: str = ""
    """Host names, separated by commas, under which browsers may call; empty: on loopback those of this machine, so that
    no other site's name can be pointed here, else any."""
    auth: Literal["off", "tokens"] = Field(default="off", validation_alias="CELLSPARSE_AUTH")
    """`CELLSPARSE_AUTH`: `tokens` if the orchestrator asks for tokens. Requests without a valid one are then refused,
    but for the page's files and probes."""
    oidc_issuer: str = Field(default="", validation_alias="CELLSPARSE_OIDC_ISSUER")
    """`CELLSPARSE_OIDC_ISSUER`: URL of the identity provider whose tokens the orchestrator takes."""
    oidc_client_id: str = Field(default="", max_length=500)
    """Name of this server at the provider; set: the page offers to sign in there. Requires the provider and
    `CELLSPARSE_GATEWAY_PAGE_URL`."""
    oidc_client_secret: SecretStr = SecretStr("")
    """The client's secret; empty for a public client."""
    oidc_scopes: str = Field(default="openid profile", pattern=r"^[!#-\[\]-~]+( [!#-\[\]-~]+)*$")
    """What is asked for at the provider, separated by blanks."""
    oidc_token: Literal["id_token", "access_token"] = "id_token"  # noqa: S105 - the name of one
    """Which of the provider's tokens is shown to the orchestrator; its audience must be the orchestrator's."""
    page_url: str = ""
    """URL of the page as browsers know it, such as https://cellsparse.example.org. The provider sends browsers back
    there."""
    https_cert: Path | None = None
    """PEM file with this server's certificate, followed by intermediate ones; it then speaks HTTPS. With the key."""
    https_key: Path | None = None
    """PEM file with the certificate's private key, not encrypted."""
    behind_https: bool = False
    """Whether a proxy in front of this server speaks HTTPS with browsers, and nothing else reaches this server."""
    insecure: bool = Field(default=False, validation_alias="CELLSPARSE_INSECURE")
    """`CELLSPARSE_INSECURE`: listen beyond loopback even without HTTPS, or without asking for tokens."""
    orchestrator: str = ""
    """host:port of the orchestrator; empty: read from its file in the home folder, again whenever that changes."""
    home: Path = Field(default_factory=default_home, validation_alias="CELLSPARSE_HOME")
    """Home folder of the local services."""
    max_body_mib: int = Field(default=512, ge=1, le=65_536)
    """Largest body of a request, MiB."""
    max_bodies_mib: int = Field(default=2048, ge=64, le=1_048_576)
    """Most MiB that bodies of all requests together may take in memory and on disk, until they are answered. Bodies
    that are passed on as they come do not count. A request that would exceed it is refused until others are done."""
    max_decoded_mib: int = Field(default=1024, ge=64, le=1_048_576, validation_alias="CELLSPARSE_MAX_DECODED_MIB")
    """`CELLSPARSE_MAX_DECODED_MIB`: most MiB that the images of all requests together may take decoded at the same
    time. A request that would exceed it waits for a moment, and is then refused. Images below 4 MiB do not count."""
    drain_seconds: float = Field(default=10.0, ge=0.0, le=3600.0)
    """Time for requests under way to finish after SIGTERM, seconds. Event streams end at once."""
    address_file: Path | None = None
    """File that receives the bound host:port once the server is ready."""
    owner_pid: int | None = Field(default=None, ge=1)
    """Process id of the owner. The gateway ends a minute after it is gone, unless another orchestrator answers."""
    docs: Path | None = None
    """Folder of the built documentation, served under /docs/; not set: the one beside the source, if it is built."""
    sample: Path | None = None
    """Image file of the sample project; not set: the nuclei in the installed stardist package."""
    qupath_seconds: float = Field(default=90.0, ge=1.0, le=3600.0, validation_alias="CELLSPARSE_QUPATH_SECONDS")
    """`CELLSPARSE_QUPATH_SECONDS`: how long a training that QuPath's extension asks for should take, seconds."""
    sam_encoder: Path | None = None
    """ONNX file of a Segment Anything encoder, for the prompter `onnx-sam`. Requires the decoder and the licence."""
    sam_decoder: Path | None = None
    """ONNX file of the decoder."""
    sam_licence: str = Field(default="", max_length=200)
    """Licence of these weights, shown beside what they propose."""
    weights_folder: Path | None = None
    """Folder for weights that come from the orchestrator's store; not set: `weights` in the home folder."""
    weights_mib: int = Field(default=2048, ge=1, le=65_536)
    """Most weights to keep there, MiB; those used longest ago go."""
    log_level: LogLevel = "INFO"
    """Least severe log level to print: DEBUG, INFO, WARNING or ERROR."""
    tls_ca: str = ""
    """PEM file of the authorities that sign the orchestrator's certificate, or `system`. Set: it is called with TLS."""
    tls_cert: Path | None = None
    """PEM file with the certificate shown to the orchestrator, if it requires one. Requires the key."""
    tls_key: Path | None = None
    """PEM file with that certificate's private key."""
    tls_server_name: str = ""
    """Name in the orchestrator's certificate, if it is not the one in its address."""

    @model_validator(mode="after")
    def _certificate_and_key_come_in_pairs(self) -> Self:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("CELLSPARSE_GATEWAY_TLS_CERT and CELLSPARSE_GATEWAY_TLS_KEY must be given together.")
        if (self.https_cert is None) != (self.https_key is None):
            raise ValueError("CELLSPARSE_GATEWAY_HTTPS_CERT and CELLSPARSE_GATEWAY_HTTPS_KEY must be given together.")
        return self

    @model_validator(mode="after")
    def _a_client_knows_its_provider(self) -> Self:
        if self.oidc_client_id:
            if not is_safe_url(self.oidc_issuer):
                raise ValueError(
                    f"CELLSPARSE_GATEWAY_OIDC_CLIENT_ID needs CELLSPARSE_OIDC_ISSUER, which is {self.oidc_issuer!r}; "
                    "allowed is an address with https, or on this machine."
                )
            redirect_url(self.page_url)
        return self

    @model_validator(mode="after")
    def _weights_come_with_a_licence(self) -> Self:
        given = (self.sam_encoder is not None, self.sam_decoder is not None, bool(self.sam_licence))
        if any(given) and not all(given):
            raise ValueError(
                "CELLSPARSE_GATEWAY_SAM_ENCODER, CELLSPARSE_GATEWAY_SAM_DECODER and CELLSPARSE_GATEWAY_SAM_LICENCE "
                "must be given together."
            )
        return self

    @property
    def max_body_bytes(self) -> int:
        """Largest body of a request, bytes."""
        return self.max_body_mib * 2**20

    def host_names(self) -> frozenset[str]:
        """Return the host names under which browsers may call; empty: any."""
        if self.hosts:
            return frozenset(name.strip().lower() for name in self.hosts.split(",") if name.strip())
        loopback = self.host.strip("[]") in ("::1", "localhost") or self.host.startswith("127.")
        return frozenset({"localhost", "127.0.0.1", "[::1]", self.host.lower()}) if loopback else frozenset()

    def registration(self) -> Registration | None:
        """Return how this server is known to an identity provider; None: nobody signs in there."""
        if not self.oidc_client_id:
            return None
        return Registration(
            issuer=self.oidc_issuer,
            client_id=self.oidc_client_id,
            client_secret=self.oidc_client_secret.get_secret_value(),
            redirect_url=redirect_url(self.page_url),
            scopes=self.oidc_scopes,
            shown=self.oidc_token,
        )

    def client_tls(self) -> ClientTls | None:
        """Return how the orchestrator is called, None for calls without TLS."""
        if not self.tls_ca:
            return None
        return ClientTls(ca=self.tls_ca, cert=self.tls_cert, key=self.tls_key, server_name=self.tls_server_name)
