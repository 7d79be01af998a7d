"""The sections of the configuration with their defaults: durations in seconds, sizes in octets, scores in points."""

from __future__ import annotations

import socket
from functools import cached_property
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from mailgate.config import kinds
from mailgate.config.kinds import (
    Address,
    AuthservId,
    DiskShare,
    Domain,
    Duration,
    File,
    Glob,
    Name,
    Nameserver,
    Network,
    OptionalFile,
    OptionalRate,
    OptionalUrl,
    Positive,
    Recipient,
    Score,
    SecretFile,
    Size,
    SpoolUrl,
)
from mailgate.core.auth_policy import AuthPolicy, Enforcement, ListEnforcement
from mailgate.core.endpoint import Endpoint
from mailgate.core.limits import LIMITS, LimitPolicy
from mailgate.core.networks import NetworkAction, NetworkPolicy
from mailgate.core.rules import AfterAcceptance, Policy
from mailgate.core.spam import ListThresholds, OnFailure, SpamPolicy, Thresholds
from mailgate.core.units import Share

_QUESTIONS = 200  # to name servers at once, each with a socket (`edge.dns`)
_OWN_FILES = 64  # the spool's, /metrics', the log, what listens


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True, strict=True)


class RelayConfig(_Section):
    """The relay door. Durations in seconds, sizes in octets."""

    lmtp: tuple[Address, ...] = Field(default=(Endpoint("127.0.0.1", 8025),), strict=False)
    smtp: tuple[Address, ...] = Field(default=(), strict=False)
    trusted_peers: tuple[Network, ...] = Field(
        default=(kinds.network("127.0.0.0/8"), kinds.network("::1")), strict=False
    )
    client_secret_file: SecretFile = kinds.Secret()
    proxy_protocol: bool = False
    xclient: bool = False
    max_message_size: Size = 40 * 2**20
    max_in_flight: Size = 512 * 2**20
    max_connections: Annotated[int, Field(gt=0)] = 500
    budget: Positive = 45.0
    idle_timeout: Positive = 300.0
    session_timeout: Positive = 3600.0

    @cached_property
    def slack_size(self) -> int:
        """Octets of the largest message that the relay door takes: what Exim has accepted would bounce there.

        Exim says a size that is too large by 1024 and more, adds a header field, and counts a line end as one octet.
        """
        return self.max_message_size + self.max_message_size // 20 + 16 * 1024


class MailmanConfig(_Section):
    """The next hop: Mailman's LMTP server, and what shows how Mailman is."""

    lmtp: Address = Endpoint("127.0.0.1", 8024)
    connections: Annotated[int, Field(gt=0)] = 10
    connect_timeout: Positive = 5.0
    reply_timeout: Positive = 30.0
    probe_interval: Positive = 5.0
    queue_dir: OptionalFile = None
    pid_file: OptionalFile = None
    rest_url: OptionalUrl = None
    rest_secret_file: SecretFile = kinds.Secret()
    stalled_after: Positive = 900.0
    spool_when_stalled: bool = False

    @property
    def watched(self) -> bool:
        """Is there anything by which to see what Mailman does with its mail?"""
        return bool(self.queue_dir or self.pid_file or self.rest_url)


class SpoolConfig(_Section):
    """Messages on disk while Mailman is down."""

    url: SpoolUrl = "sqlite:////var/lib/mailgate/spool.db"
    max_bytes: Size = 20 * 2**30
    min_free: DiskShare = Share(part=0.05)
    lifetime: Positive = 5 * 86400.0
    retry_first: Positive = 10.0
    retry_max: Positive = 900.0

    @property
    def path(self) -> Path:
        """The file of the embedded spool."""
        return Path(self.url.removeprefix("sqlite:///"))


class ReplayConfig(_Section):
    """The pace at which spooled messages go to Mailman: at once, and a second (0 = as fast as it takes them)."""

    concurrency: Annotated[int, Field(gt=0)] = 4
    rate: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0


class SpamListConfig(_Section):
    """Other thresholds for the lists whose addresses `match`; what is not given is as for all."""

    match: Glob
    tag_score: Score | None = None
    hold_score: Score | None = None
    reject_score: Score | None = None


class SpamConfig(_Section):
    """Spam scoring: who scores, what is not scored, and what a score does (0 = never)."""

    engine: Literal["off", "spamd", "rspamd"] = "spamd"
    servers: tuple[Address, ...] = Field(default=(Endpoint("127.0.0.1", 783),), strict=False)
    connections: Annotated[int, Field(gt=0)] = 8
    timeout: Positive = 10.0
    probe_interval: Positive = 1.0
    max_size: Size = 400 * 2**10
    on_failure: OnFailure = "accept"
    hold_at_most: Positive = 3600.0
    tag_score: Score = 1.0
    hold_score: Score = 0.0
    reject_score: Score = 6.0
    skip_networks: tuple[Network, ...] = Field(default=(), strict=False)
    skip_recipients: tuple[Recipient, ...] = Field(default=("postmaster", "abuse"), strict=False)
    lists: tuple[SpamListConfig, ...] = Field(default=(), strict=False)

    @cached_property
    def policy(self) -> SpamPolicy:
        """The same as the rules want it."""
        return SpamPolicy(
            enabled=self.engine != "off",
            thresholds=Thresholds(self.tag_score, self.hold_score, self.reject_score),
            lists=tuple(
                ListThresholds(one.match, one.tag_score, one.hold_score, one.reject_score) for one in self.lists
            ),
            max_size=self.max_size,
            on_failure=self.on_failure,
            skip_networks=self.skip_networks,
            skip_recipients=frozenset(self.skip_recipients),
        )


class AuthListConfig(_Section):
    """Another strictness for the lists whose addresses `match`; what is not given is as for all."""

    match: Glob
    dmarc_enforce: Enforcement | None = None
    spf_fail: Enforcement | None = None


class AuthConfig(_Section):
    """The checks of who sent a message, and what they do. `timeout` in seconds, for all checks of a message."""

    spf: bool = True
    dkim: bool = True
    dmarc: bool = True
    arc: bool = True
    timeout: Positive = 5.0
    authserv_id: AuthservId = ""
    nameservers: tuple[Nameserver, ...] = Field(default=(), strict=False)
    dmarc_enforce: Enforcement = "none"
    spf_fail: Enforcement = "none"
    trusted_sealers: tuple[Domain, ...] = Field(default=(), strict=False)
    lists: tuple[AuthListConfig, ...] = Field(default=(), strict=False)

    @property
    def enabled(self) -> bool:
        """Is anything checked?"""
        return self.spf or self.dkim or self.arc


class NetworksConfig(_Section):
    """Lists of abusive networks: where they are, and what is done with mail from there."""

    files: tuple[File, ...] = Field(default=(), strict=False)
    contexts: tuple[Name, ...] = Field(default=("mx",), strict=False)
    action: NetworkAction = "reject"
    actions: dict[str, NetworkAction] = {}
    drift_contexts: tuple[Name, ...] = Field(default=("ferm",), strict=False)
    own_file: File = Path("/var/lib/mailgate/local-networks.txt")

    @cached_property
    def policy(self) -> NetworkPolicy:
        """The same as the rules want it."""
        return NetworkPolicy(
            frozenset(self.contexts),
            self.action,
            tuple(self.actions.items()),
            tuple(dict.fromkeys(self.drift_contexts)),
        )


class PolicyConfig(_Section):
    """What is done with mail that is not wanted."""

    reject_after_acceptance: AfterAcceptance = "hold"


class VerdictConfig(_Section):
    """The verdict door. Peers and the size of a message are bounded as at the relay door."""

    writing: ClassVar[float] = 1.0  # seconds of the budget that are left for writing the verdict down

    listen: tuple[Address, ...] = Field(default=(), strict=False)
    budget: Positive = 15.0
    max_connections: Annotated[int, Field(gt=0)] = 100
    max_in_flight: Size = 256 * 2**20

    @property
    def looking(self) -> float:
        """Seconds of the budget in which a message is looked at."""
        return self.budget - self.writing


class LimitsConfig(_Section):
    """How much mail is taken at the verdict door from one network, and how large a network is."""

    commands: OptionalRate = None
    network: OptionalRate = None
    sender: OptionalRate = None
    ipv4_prefix: Annotated[int, Field(ge=8, le=32)] = 24
    ipv6_prefix: Annotated[int, Field(ge=16, le=128)] = 56


class HistoryConfig(_Section):
    """What `mailgate trace` knows: for how long (0: nothing is kept), and how much of it."""

    keep: Duration = 14 * 86400.0
    max_bytes: Size = 2**30


class HttpConfig(_Section):
    """Where /metrics, /healthz, /readyz and the others are served."""

    listen: Address = Endpoint("127.0.0.1", 9725)


class LogConfig(_Section):
    """How events are written on stderr."""

    format: Literal["json", "text"] = "json"
    level: Literal["debug", "info", "warning", "error"] = "info"
    redact: bool = False


class Config(_Section):
    """The whole configuration."""

    hostname: Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[A-Za-z0-9.-]+$")] = Field(
        default_factory=socket.getfqdn
    )
    relay: RelayConfig = RelayConfig()
    mailman: MailmanConfig = MailmanConfig()
    spool: SpoolConfig = SpoolConfig()
    replay: ReplayConfig = ReplayConfig()
    spam: SpamConfig = SpamConfig()
    networks: NetworksConfig = NetworksConfig()
    auth: AuthConfig = AuthConfig()
    policy: PolicyConfig = PolicyConfig()
    verdict: VerdictConfig = VerdictConfig()
    limits: LimitsConfig = LimitsConfig()
    history: HistoryConfig = HistoryConfig()
    http: HttpConfig = HttpConfig()
    log: LogConfig = LogConfig()

    @cached_property
    def for_rules(self) -> Policy:
        """What the rulebook needs of it."""
        return Policy(self.spam.policy, self.networks.policy, self._auth_policy, self.policy.reject_after_acceptance)

    @property
    def descriptors(self) -> int:
        """How many files may be open at once: a connection is one, and so is a question to a name server."""
        spam, verdict, auth = self.spam, self.verdict, self.auth
        scorers = spam.connections * len(spam.servers) if spam.engine != "off" else 0
        asking = verdict.max_connections if verdict.listen else 0
        questions = _QUESTIONS if auth.enabled else 0
        return self.relay.max_connections + self.mailman.connections + scorers + asking + questions + _OWN_FILES

    @property
    def _auth_policy(self) -> AuthPolicy:
        auth = self.auth
        return AuthPolicy(
            enabled=auth.enabled,
            dmarc=auth.dmarc_enforce,
            spf=auth.spf_fail,
            lists=tuple(ListEnforcement(one.match, one.dmarc_enforce, one.spf_fail) for one in auth.lists),
            sealers=auth.trusted_sealers,
            skip_networks=self.spam.skip_networks,
        )

    @cached_property
    def authserv_id(self) -> str:
        """The name under which Authentication-Results are written."""
        return self.auth.authserv_id or self.hostname

    @cached_property
    def for_limiter(self) -> LimitPolicy:
        """What the limiter needs of it."""
        rates = {limit: rate for limit in LIMITS if (rate := getattr(self.limits, limit))}
        return LimitPolicy(rates, self.limits.ipv4_prefix, self.limits.ipv6_prefix, self.spam.skip_networks)

    @property
    def networks_table(self) -> Path:
        """Where what the files list is kept, ready to be looked up."""
        return self.spool.path.with_name("networks.table")
