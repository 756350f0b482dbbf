"""The orchestrator's settings, from environment variables with the prefix CELLSPARSE_."""

import importlib.metadata
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import NoDecode

from cellsparse_common.config.exposure import is_safe_url
from cellsparse_common.config.limits import DEFAULT_MAX_PROJECT_PIXELS, LARGEST_MAX_PIXELS
from cellsparse_common.config.settings import ENV_PREFIX, ServerSettings

DEFAULT_PORT = 50050
DEFAULT_HOME = Path("~/.cellsparse")
CLUSTER_LOST_SECONDS = 30.0
SHORTEST_TOKEN = 32
ROLES = ("reader", "annotator", "admin")
TRAINER_GROUP = "cellsparse.trainers"
"""Entry-point group in which trainer packages name themselves (see `cellsparse_trainer.contract`)."""
NamedText = Annotated[dict[str, str], NoDecode]


def installed_trainers() -> dict[str, str]:
    """Return the Python modules of the installed trainers by backend, in alphabetical order; none is imported."""
    found = importlib.metadata.entry_points(group=TRAINER_GROUP)
    return {entry.name: entry.module for entry in sorted(found, key=lambda entry: entry.name)}


class OrchestratorSettings(ServerSettings):
    """Where state is kept, how services are found, and how many runs train at once."""

    port: int = DEFAULT_PORT
    """TCP port; 0 lets the system choose one."""
    workers: int = Field(default=128, ge=4, le=1024)
    """Calls that are answered at once, each by a thread."""
    watchers: int = Field(default=1024, ge=4, le=100_000)
    """Streams that watch runs and studies at once, beside these calls. They hold no thread while they wait. One
    connection may have three quarters as many as `workers`, one machine seven eighths of them all."""
    home: Path = DEFAULT_HOME
    """Folder of the database, logs, process records and, unless `store_url` is given, the object store."""
    store_url: str = ""
    """URL of the object store; empty for the folder `store` in `home`."""
    database_url: SecretStr = SecretStr("")
    """SQLAlchemy URL, postgresql+psycopg://user:password@host/database; empty for the SQLite file `cellsparse.db` in
    `home`. It is never logged, because it may hold a password."""
    database_seconds: float = Field(default=30.0, ge=0.0, le=3600.0)
    """Longest wait at start for a PostgreSQL server that does not answer yet, seconds."""
    lease_seconds: float = Field(default=10.0, ge=1.0, le=300.0)
    """Several orchestrators may share a database: one leads, the others stand by. One that gives no sign of life for so
    long, seconds, is taken for dead, and a standby takes over. The same for all of them. An orchestrator that ends
    properly, or whose process is gone from this machine, is not waited for."""
    sts_endpoint: str = ""
    """URL of the store's STS, for MinIO the store's own (http://127.0.0.1:9000). Set: each training attempt gets
    credentials of its own (AssumeRole), which open its run and its dataset and end soon. Not set: trainings use the
    keys that their trainers have."""
    sts_role_arn: str = ""
    """Role of whose rights attempts get a part, for AWS: arn:aws:iam::ACCOUNT:role/NAME. MinIO needs none."""
    sts_seconds: int = Field(default=3600, ge=10, le=43_200)
    """How long an attempt's credentials are valid, seconds, 10 to 43,200; they are renewed after a third of it. A
    training outlasts a longer absence of the orchestrator as it does an outage of the store: it goes on, and its
    checkpoints wait."""
    auth: Literal["off", "tokens"] = "off"
    """Whether every call must show a token: `tokens`, or `off`. Health checks and reflection need none."""
    admin_token: SecretStr = SecretStr("")
    """An administrator's token, at least 32 characters, beside those in the database: for the first steps of an
    installation. Never logged. Not set: the one in the file `admin-token` in `home`, which is made if `auth` is on.
    Whoever may read this folder is an administrator."""
    oidc_issuer: str = ""
    """URL of an identity provider (OpenID Connect) whose tokens are taken beside those in the database, as the tokens
    name it (`iss`): https, or http on this machine. Not set: none."""
    oidc_audience: str = ""
    """Whom the provider's tokens must be for (`aud`), such as the name of this installation there; required with it."""
    oidc_roles_claim: str = "roles"
    """Where the provider's tokens have what gives roles, a text or a list; dots lead into objects:
    `realm_access.roles`."""
    oidc_roles: NamedText = Field(
        default={"cellsparse-reader": "reader", "cellsparse-annotator": "annotator", "cellsparse-admin": "admin"}
    )
    """Role (reader, annotator, admin) by what that claim has, as "text=role,text=role". The highest counts."""
    oidc_project_claim: str = "project"
    """Where the provider's tokens have the id or name of their one project; dots lead into objects."""
    audit_days: int = Field(default=730, ge=1, le=36_500)
    """How long the record of changes is kept, days. It is written while `auth` is on."""
    grace_days: float = Field(default=30.0, ge=0.0, le=3650.0)
    """How long a deleted dataset, run, model, study or project can be undeleted, days. The next collection after that
    removes it for good."""
    collect_hours: float = Field(default=24.0, ge=0.0, le=8760.0)
    """How often the store is collected: what was deleted longer ago than `grace_days`, and what nothing refers to, is
    removed. Hours; 0: only when `cellsparse admin collect` asks for it."""
    collect_wait_hours: float = Field(default=24.0, ge=0.0, le=8760.0)
    """How long nothing must have referred to an object before a collection removes it, hours."""
    checkpoint_days: float = Field(default=7.0, ge=0.0, le=3650.0)
    """Days after which a run that has ended keeps its best and its last checkpoint only."""
    launcher: Literal["local", "static", "kubernetes"] = "local"
    """`local` starts the other services as child processes, `static` uses the given addresses, `kubernetes` makes a Job
    for every attempt and uses the given addresses for all that is not training."""
    trainer_modules: NamedText = Field(default_factory=installed_trainers)
    """`local`: Python module by backend, as "name=module,name=module"; not set: the installed trainers."""
    trainer_pythons: NamedText = Field(default={})
    """`local`: Python interpreter by backend, as "name=path,name=path"; not set: the orchestrator's own, and for a
    trainer whose framework excludes another's that of an environment beside it (see `launchers.environments`)."""
    sparsifier_module: str = "cellsparse_sparsifier"
    """`local`: Python module of the sparsifier."""
    gateway_module: str = "cellsparse_gateway"
    """`local`: Python module of the web page's server."""
    web_port: int | None = Field(default=None, ge=0, le=65535)
    """`local`: TCP port of the web page's server, 0 for a free one; not set: there is none."""
    trainers: NamedText = Field(default={})
    """`static` and `kubernetes`: host:port by backend, as "name=host:port,name=host:port"."""
    scale_to_zero: Annotated[tuple[str, ...], NoDecode] = ()
    """`static` and `kubernetes`: backends among `trainers` that an autoscaler scales to zero while not needed, as
    "name,name". Such a trainer that does not answer is asleep, not broken: calls wait for it, in their order."""
    wake_seconds: float = Field(default=600.0, gt=0.0, le=86_400.0)
    """Longest wait of a call for a trainer that is asleep, seconds; a client's deadline may be shorter. It counts
    before `predict_seconds` and the like begin."""
    sparsifier: str = ""
    """`static` and `kubernetes`: host:port of the sparsifier."""
    cluster_file: Path | None = None
    """`kubernetes`: YAML file that describes where and how Jobs are made; required."""
    kubeconfig: Path | None = None
    """`kubernetes`: kubeconfig file for access from outside the cluster; not set for the pod's service account."""
    slots: int = Field(default=1, ge=1, le=10_000)
    """Runs that train at the same time."""
    retry_seconds: float = Field(default=1.0, ge=0.0, le=3600.0)
    """Pause before the second attempt, seconds; doubled for every further one, up to `retry_limit_seconds`."""
    retry_limit_seconds: float = Field(default=60.0, ge=0.0, le=86_400.0)
    """Longest pause between attempts, seconds."""
    store_seconds: float = Field(default=5.0, gt=0.0, le=3600.0)
    """While the object store does not answer, no attempt is begun; it is asked again after this many seconds."""
    start_seconds: float = Field(default=120.0, gt=0.0, le=3600.0)
    """How long an attempt waits for its trainer to come up and accept it, seconds."""
    lost_seconds: float = Field(default=3.0, gt=0.0, le=3600.0)
    """How long an event stream may stay broken before the attempt counts as lost, seconds. The default is 30 with
    `kubernetes`, because a cluster's network breaks for longer and reports late why a pod ended."""
    stop_seconds: float = Field(default=30.0, gt=0.0, le=3600.0)
    """How long a trainer may take to end an attempt that is being cancelled, seconds."""
    upload_seconds: float = Field(default=7200.0, gt=0.0, le=86_400.0)
    """Longest time of an upload, seconds; a client's deadline may be shorter."""
    upload_idle_seconds: float = Field(default=600.0, gt=0.0, le=86_400.0)
    """How long an upload may send nothing before it is ended, seconds: clients compress large arrays in between."""
    upload_keep_hours: float = Field(default=72.0, gt=0.0, le=8760.0)
    """How long an upload that broke off can be gone on with, and a file that was sent waits for its dataset or model,
    hours."""
    upload_url_mib: int = Field(default=64, ge=0, le=65_536)
    """Files from this size on can be sent straight to an S3 store, by URLs that the orchestrator signs, MiB; 0: none.
    Clients that do not reach the store send them to the orchestrator."""
    upload_part_mib: int = Field(default=256, ge=5, le=5120)
    """Larger files go to an S3 store in parts of this size, MiB; after a cut, parts that came are not sent again."""
    upload_url_endpoint: str = ""
    """host:port under which clients reach the S3 server; empty: `s3_endpoint`."""
    max_image_file_mib: int = Field(default=1024, ge=1, le=65_536)
    """Largest file of an image or label image that comes in chunks, MiB: in a dataset upload, or to be segmented. It is
    kept on disk, not in memory."""
    predict_seconds: float = Field(default=300.0, gt=0.0, le=86_400.0)
    """Longest time of a Predict call, seconds; a client's deadline may be shorter."""
    evaluate_seconds: float = Field(default=7200.0, gt=0.0, le=86_400.0)
    """Longest time of an Evaluate or CreateSparseDataset call, seconds; a client's deadline may be shorter."""
    export_seconds: float = Field(default=1800.0, gt=0.0, le=86_400.0)
    """Longest time of an Export call with its download, seconds; a client's deadline may be shorter."""

    import_seconds: float = Field(default=600.0, gt=0.0, le=86_400.0)
    """Longest time to check and publish an uploaded model, seconds."""
    max_model_mib: int = Field(default=2048, ge=1, le=65_536)
    """Largest model file of an import, MiB."""

    max_project_pixels: int = Field(default=DEFAULT_MAX_PROJECT_PIXELS, ge=1, le=LARGEST_MAX_PIXELS)
    """Largest image of a project, pixels (height x width, of a stack x planes), 1 to 2**31. Larger than `max_pixels`,
    because such an image is kept as tiles; training takes the annotated part of it."""
    max_project_file_mib: int = Field(default=512, ge=1, le=65_536)
    """Largest file of a project's image or of labels imported into it, MiB."""
    max_prompter_mib: int = Field(default=2048, ge=1, le=2048)
    """Largest file of a prompter's weights, MiB: the encoder, and the decoder."""

    @field_validator("trainer_modules", "trainer_pythons", "trainers", "oidc_roles", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        pairs = [part.strip().partition("=") for part in value.split(",") if part.strip()]
        wrong = [name for name, equals, target in pairs if not (name and equals and target)]
        if wrong:
            raise ValueError(f"expected name=value pairs separated by commas, got {value!r}")
        return {name.strip(): target.strip() for name, _, target in pairs}

    @field_validator("scale_to_zero", mode="before")
    @classmethod
    def _list(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("admin_token")
    @classmethod
    def _is_long(cls, value: SecretStr) -> SecretStr:
        if 0 < len(value.get_secret_value().strip()) < SHORTEST_TOKEN:
            raise ValueError(f"a token that is chosen has at least {SHORTEST_TOKEN} characters")
        return SecretStr(value.get_secret_value().strip())

    @field_validator("oidc_roles")
    @classmethod
    def _are_roles(cls, value: dict[str, str]) -> dict[str, str]:
        wrong = sorted(set(value.values()) - set(ROLES))
        if wrong or not value:
            raise ValueError(f"role {wrong[0] if wrong else ''!r} is not known; allowed: {', '.join(ROLES)}")
        return value

    @model_validator(mode="after")
    def _is_whole_provider(self) -> "OrchestratorSettings":
        if self.oidc_issuer and not is_safe_url(self.oidc_issuer):
            raise ValueError(f"oidc_issuer {self.oidc_issuer!r} is not allowed: https, or http on this machine")
        if self.oidc_issuer and not self.oidc_audience:
            raise ValueError("oidc_audience is missing: without it tokens for other services would be taken here")
        if self.oidc_issuer and self.auth == "off":
            raise ValueError("oidc_issuer is set, but auth is off: set auth to tokens")
        return self

    @model_validator(mode="after")
    def _knows_what_scales(self) -> "OrchestratorSettings":
        unknown = [name for name in self.scale_to_zero if name not in self.trainers]
        if unknown:
            raise ValueError(f"scale_to_zero names {unknown[0]!r}; allowed: {', '.join(self.trainers) or 'none'}")
        return self

    @model_validator(mode="after")
    def _has_keys_for_sts(self) -> "OrchestratorSettings":
        if not self.sts_endpoint:
            return self
        if not self.store_url.startswith("s3://") or not self.s3_access_key:
            raise ValueError(
                f"{ENV_PREFIX}STS_ENDPOINT needs a store in S3 with keys: {ENV_PREFIX}STORE_URL=s3://BUCKET, "
                f"{ENV_PREFIX}S3_ACCESS_KEY and {ENV_PREFIX}S3_SECRET_KEY."
            )
        if not self.sts_endpoint.startswith(("http://", "https://")) or "@" in self.sts_endpoint:
            raise ValueError("sts_endpoint is no URL of a server; allowed: http://host:port or https://host")
        return self

    @model_validator(mode="before")
    @classmethod
    def _keep_in_home(cls, values: dict[str, Any]) -> dict[str, Any]:
        home = Path(values.get("home") or DEFAULT_HOME).expanduser().absolute()
        ours = {"store_url": (home / "store").as_uri(), "database_url": f"sqlite:///{home / 'cellsparse.db'}"}
        return {**values, "home": home, **{key: url for key, url in ours.items() if not values.get(key)}}

    @model_validator(mode="before")
    @classmethod
    def _suit_cluster(cls, values: dict[str, Any]) -> dict[str, Any]:
        if values.get("launcher") != "kubernetes":
            return values
        if not values.get("cluster_file"):
            raise ValueError(f"{ENV_PREFIX}CLUSTER_FILE must be given with {ENV_PREFIX}LAUNCHER=kubernetes.")
        return {"lost_seconds": CLUSTER_LOST_SECONDS, **values}
