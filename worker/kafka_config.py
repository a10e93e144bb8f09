"""PURE. What the Kafka side is told: addresses, security, sizes and timeouts, with the order that these must keep.

```
commit < listener < rebalance < request < stuck     a rebalance waits for the slowest listener, and JoinGroup is a
heartbeat < session                                 request: if it times out first, the client joins for ever
```
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, NamedTuple

from perdure.schemas.errors import SettingsError

SecurityProtocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
SaslMechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]

GROUP = "group"
MANUAL = "manual"

POLL_INTERVAL_MS_MAX = 2**31 - 1
"""aiokafka leaves the group for good when nobody polls for so long, and a full worker rightly does not poll. Whether
the worker itself is alive is told by its heartbeats: they run on its event loop."""

FETCH_BYTES_MAX = 16 * 1_048_576
"""Most bytes of one fetch over all its partitions."""

HEARTBEAT_INTERVAL_MS_MAX = 300
"""A member learns by its heartbeat that the group rebalances, and until all members have, those that have get no
records: with a third of a session of ten seconds, calls took up to 8 s while three workers were restarted."""

METADATA_AGE_MS_MAX = 10_000
"""New partitions of a topic are noticed within this time; Kafka's default of five minutes leaves them unread."""


@dataclass(frozen=True, slots=True)
class KafkaSecurity:
    """How connections are encrypted and authenticated. Files are PEM, read when a client is made.

    Without `ca_file` the system's authorities are trusted.
    """

    protocol: SecurityProtocol = "PLAINTEXT"
    sasl_mechanism: SaslMechanism = "PLAIN"
    sasl_username: str | None = None
    sasl_password: str | None = field(default=None, repr=False)
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    key_password: str | None = field(default=None, repr=False)
    check_hostname: bool = True

    def __post_init__(self) -> None:
        if self.protocol.startswith("SASL") and (not self.sasl_username or self.sasl_password is None):
            raise SettingsError(f"Security protocol {self.protocol} needs a SASL user name and password: set both.")
        if self.key_file and not self.cert_file:
            raise SettingsError("A TLS key file without a certificate file is of no use: set the certificate file.")


@dataclass(frozen=True, slots=True)
class KafkaConfig:
    """Everything that `KafkaBroker` needs to know; plain values, in milliseconds and bytes.

    Attributes:
        bootstrap_servers: `host:port`, several separated by commas; one that answers is enough.
        group_id: The consumer group, under which offsets are committed in both modes.
        client_id: How the brokers' logs call this process.
        assignment: `group`: partitions are shared with other workers by Kafka's group protocol. `manual`: this process
            takes all partitions, which starts at once; only right while it is the only one.
        fetch_max_wait_ms: How long a broker may hold a fetch that finds nothing. A record that arrives meanwhile ends
            the wait on Apache Kafka. The embedded broker notices it late, so that a hop takes half of this and 2 ms:
            5 there.
        partition_fetch_bytes_max: Most bytes of one partition in one fetch; times the partitions, this bounds memory.
        request_bytes_max: The largest record that is produced; not above the brokers' `message.max.bytes`.
        batch_bytes_max: Most bytes of one partition in one produce request.
        session_timeout_ms: After so long without a heartbeat the group takes this worker for dead.
        rebalance_timeout_ms: How long the group waits for each member to let go of its partitions.
        commit_timeout_ms: For one commit.
        request_timeout_ms: For one request of the consumer.
        produce_timeout_ms: For `produce`, from the first record to the last acknowledgement.
        stop_timeout_ms: For closing each client; then it is abandoned.
        probe_interval_ms: Between two looks at whether the brokers answer and the topics exist.
        probe_timeout_ms: After so long without an answer Kafka counts as not reachable.
        stuck_after_ms: A client that got nothing done for so long, while Kafka answers others, is replaced.
    """

    bootstrap_servers: str
    group_id: str
    client_id: str = "perdure"
    security: KafkaSecurity = KafkaSecurity()
    assignment: Literal["group", "manual"] = "group"
    fetch_max_wait_ms: int = 50
    partition_fetch_bytes_max: int = 1_048_576
    request_bytes_max: int = 1_048_576
    batch_bytes_max: int = 131_072
    session_timeout_ms: int = 10_000
    rebalance_timeout_ms: int = 15_000
    commit_timeout_ms: int = 5_000
    request_timeout_ms: int = 30_000
    produce_timeout_ms: int = 10_000
    stop_timeout_ms: int = 5_000
    probe_interval_ms: int = 2_000
    probe_timeout_ms: int = 5_000
    stuck_after_ms: int = 60_000

    def __post_init__(self) -> None:
        order = (
            ("commit_timeout_ms", self.commit_timeout_ms),
            ("two thirds of rebalance_timeout_ms", self.listener_timeout_ms),
            ("rebalance_timeout_ms", self.rebalance_timeout_ms),
            ("request_timeout_ms", self.request_timeout_ms),
            ("stuck_after_ms", self.stuck_after_ms),
        )
        for (low_name, low), (high_name, high) in itertools.pairwise(order):
            if low >= high:
                raise SettingsError(f"Kafka's {low_name} ({low}) must be below {high_name} ({high}): change one.")
        if self.fetch_max_wait_ms >= self.request_timeout_ms:
            raise SettingsError("Kafka's fetch_max_wait_ms must be below request_timeout_ms: change one.")
        if min(self.session_timeout_ms, self.fetch_max_wait_ms, self.probe_interval_ms, self.commit_timeout_ms) < 1:
            raise SettingsError("Kafka's timeouts and intervals must be at least 1 ms: raise the one that is not.")

    @property
    def heartbeat_interval_ms(self) -> int:
        """A third of the session, two heartbeats may be lost; and not long, because a rebalance waits for each one."""
        return max(1, min(self.session_timeout_ms // 3, HEARTBEAT_INTERVAL_MS_MAX))

    @property
    def listener_timeout_ms(self) -> int:
        """For the listener at a rebalance: the last third of the group's patience is left for joining."""
        return self.rebalance_timeout_ms * 2 // 3


@dataclass(frozen=True, slots=True)
class KafkaHealth:
    """What `KafkaBroker` knows of itself, for a health endpoint and for people.

    Attributes:
        reachable: The brokers answered the last look.
        assigned: Partitions that this process holds and fetches from; `None` while a rebalance or a start is going on.
        fetch_age_ms: How long ago a fetch was answered; `None` before the first, or without partitions.
        consumer_restarts: How often the consumer was replaced.
        producer_restarts: How often the producer was replaced.
        problem: The latest trouble that is not over, as a sentence.
    """

    reachable: bool
    assigned: int | None
    fetch_age_ms: float | None
    consumer_restarts: int
    producer_restarts: int
    problem: str | None

    @property
    def ok(self) -> bool:
        """Whether records can be expected to flow."""
        return self.reachable and self.assigned is not None and self.problem is None


class ClusterView(NamedTuple):
    """What the brokers say of themselves.

    `topics` are those asked for that exist, with their partition counts; `topic_ids` are their ids, where told;
    `copies` is on how many brokers the partition of each is that is on the fewest; `operations` are the bits of what
    the user may do with each (`kafka_rights`), where that was asked for and told.
    """

    cluster_id: str | None
    brokers: tuple[str, ...]
    topics: Mapping[str, int]
    topic_ids: Mapping[str, str]
    copies: Mapping[str, int] = MappingProxyType({})
    operations: Mapping[str, int] = MappingProxyType({})
