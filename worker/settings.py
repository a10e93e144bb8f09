"""Every setting of a worker, a client and the command: its variable, its bounds, its default, what it means.

Law: read at the rim only (`Settings.load`); what runs is handed plain values. No message shows a secret.
`python -m perdure.worker.settings` prints the table of `docs/settings.md`.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable
from typing import Annotated, Any, Final, Literal

import annotated_types
from pydantic import Field, PrivateAttr, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, SettingsConfigDict

from perdure.journal.redis_config import RedisConfig, mask_url
from perdure.schemas import limits
from perdure.schemas.errors import SettingsError
from perdure.schemas.ids import PLACES

from .kafka_config import KafkaConfig, KafkaSecurity, SaslMechanism, SecurityProtocol

PREFIX: Final = "PERDURE_"

# Variables of ours that are no settings: the test suite's.
_NOT_SETTINGS: Final = "PERDURE_TEST_"

_DAY_S: Final = 86_400

_FREE: Final = "text"


class Settings(BaseSettings):
    """What the environment says. Make one with `Settings.load`, whose errors name the variable."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid", hide_input_in_errors=True)

    namespace: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,40}$")] = Field(
        default="perdure", description="Before every topic and Redis key: one namespace, one fleet."
    )
    worker_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,80}$")] | None = Field(
        default=None, description="This process's name, different for each; made up where it is not set."
    )

    bootstrap_servers: Annotated[str, Field(min_length=1)] = Field(
        default="localhost:9092", description="Kafka: host:port, several with commas; one that answers is enough."
    )
    kafka_security_protocol: SecurityProtocol = Field(
        default="PLAINTEXT", description="Kafka: how connections are encrypted (SSL) and authenticated (SASL)."
    )
    kafka_sasl_mechanism: SaslMechanism = Field(default="PLAIN", description="Kafka: how SASL authenticates.")
    kafka_sasl_username: str | None = Field(default=None, description="Kafka: user, with a SASL protocol.")
    kafka_sasl_password: SecretStr | None = Field(default=None, description="Kafka: password, with a SASL protocol.")
    kafka_ssl_cafile: str | None = Field(
        default=None, description="Kafka: PEM file of the authorities to trust; the system's where it is not set."
    )
    kafka_ssl_certfile: str | None = Field(default=None, description="Kafka: PEM file of the client's certificate.")
    kafka_ssl_keyfile: str | None = Field(default=None, description="Kafka: PEM file of the client's key.")
    kafka_assignment: Literal["group", "manual"] = Field(
        default="group", description="`manual`: this process takes all partitions; only while it is the only one."
    )
    kafka_session_timeout_ms: Annotated[int, Field(ge=1_000, le=300_000)] = Field(
        default=10_000, description="After so long without a heartbeat Kafka gives a worker's partitions to others."
    )
    kafka_fetch_max_wait_ms: Annotated[int, Field(ge=1, le=10_000)] = Field(
        default=50, description="How long a broker holds a fetch that finds nothing; 10-20 for the embedded one."
    )
    topic_partitions: Annotated[int, Field(ge=1, le=10_000)] = Field(
        default=8, description="Partitions of topics that are created; bounds how many workers share a service."
    )
    topic_replication_factor: Annotated[int, Field(ge=-1, le=100)] = Field(
        default=-1, description="Copies of topics that are created; -1 is the cluster's default."
    )

    app: str | None = Field(
        default=None, description="`MODULE:APP` whose payload codec the command seals and opens values with."
    )
    redis_url: SecretStr = Field(
        default=SecretStr("redis://localhost:6379/0"),
        description="Redis or Valkey: `redis[s]://[user[:password]@]host[:port][/db]`, with `rediss://` for TLS; "
        "several hosts with commas and `?sentinel=<name>` or `?cluster=true` ([operations](operations.md#redis)).",
    )
    slots: Annotated[int, Field(ge=1, le=PLACES)] = Field(
        default=64, description="Parts of the namespace; fixed when it is made."
    )
    require_durable_redis: bool = Field(
        default=True, description="Refuse a Redis that would lose or evict journals; false only warns."
    )
    replicas: Annotated[int, Field(ge=0, le=16)] = Field(
        default=0, description="Redis replicas that must have an admission before its offset moves (WAITAOF)."
    )
    reply_durable: bool = Field(
        default=False, description="Let replies wait until the outcome is fsynced, too: about a second with everysec."
    )

    concurrency: Annotated[int, Field(ge=1, le=100_000)] = Field(
        default=256, description="Attempts that one process runs at once."
    )
    step_threads_max: Annotated[int, Field(ge=1, le=1_000)] = Field(
        default=32, description="Threads of one process for steps that are plain functions."
    )
    lease_s: Annotated[float, Field(ge=0.5, le=600)] = Field(
        default=10.0, description="How long a silent worker keeps its invocations before others take them over."
    )
    grace_s: Annotated[float, Field(ge=0, le=3_600)] = Field(
        default=20.0, description="How long running attempts may finish after SIGTERM; the rest goes to others."
    )
    inactivity_timeout_s: Annotated[float, Field(ge=0, le=_DAY_S)] = Field(
        default=5.0, description="How long an attempt waits in memory before it is suspended; handlers may differ."
    )
    block_ms_max: Annotated[int, Field(ge=100, le=3_600_000)] = Field(
        default=60_000, description="How long a handler may block the event loop before its leases are let go."
    )

    record_bytes_max: Annotated[int, Field(ge=1_000, le=50_000_000)] = Field(
        default=limits.RECORD_BYTES_MAX, description="A larger record goes to the dead-letter topic."
    )
    payload_bytes_max: Annotated[int, Field(ge=1_000, le=50_000_000)] = Field(
        default=limits.PAYLOAD_BYTES_MAX, description="A larger step result or outcome fails the attempt."
    )
    journal_entries_max: Annotated[int, Field(ge=100, le=limits.JOURNAL_ENTRIES_CEILING)] = Field(
        default=limits.JOURNAL_ENTRIES_MAX, description="An invocation whose journal gets longer is paused."
    )
    journal_bytes_max: Annotated[int, Field(ge=100_000, le=1_000_000_000)] = Field(
        default=limits.JOURNAL_BYTES_MAX, description="So is one whose journal holds more."
    )

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="What the command logs to stderr."
    )
    log_format: Literal["text", "json"] = Field(default="text", description="How: lines for people or for machines.")
    always_replay: bool = Field(
        default=False, description="For tests: replay from the journal at every chance, to find handlers that diverge."
    )
    strict_arguments: bool = Field(
        default=False, description="For tests: pause where a replay calls with other arguments than were recorded."
    )

    _redis: RedisConfig = PrivateAttr()

    def model_post_init(self, context: Any, /) -> None:
        """Check what spans fields or has a form of its own.

        Raises:
            SettingsError: The Redis URL, or the fields of Kafka's security together, are wrong.
        """
        try:
            self._redis = RedisConfig.from_url(self.redis_url.get_secret_value())
        except SettingsError as error:
            raise SettingsError(f"PERDURE_REDIS_URL: {error}") from error
        try:
            self.kafka_config()
        except SettingsError as error:
            raise SettingsError(f"PERDURE_KAFKA_...: {error}") from error

    @classmethod
    def load(cls, **overrides: Any) -> Settings:
        """Read the environment; `overrides` (flags, say) come before it, and those that are `None` do not count.

        Raises:
            SettingsError: A value is wrong; the message names every variable that is, and shows no secret.
        """
        given = {name: value for name, value in overrides.items() if value is not None}
        try:
            return cls(**given)
        except ValidationError as error:
            lines = [_problem(details["loc"], details["msg"]) for details in error.errors(include_input=False)]
            raise SettingsError("\n".join(lines)) from None

    @property
    def redis_config(self) -> RedisConfig:
        """Where Redis is."""
        return self._redis

    @property
    def redis_url_masked(self) -> str:
        """The Redis URL for people."""
        return mask_url(self.redis_url.get_secret_value())

    def kafka_config(self, *, client_id: str = "perdure") -> KafkaConfig:
        """Return what the Kafka side is told; the consumer group is the namespace.

        Raises:
            SettingsError: Kafka's settings do not go together.
        """
        password = self.kafka_sasl_password
        security = KafkaSecurity(
            protocol=self.kafka_security_protocol,
            sasl_mechanism=self.kafka_sasl_mechanism,
            sasl_username=self.kafka_sasl_username,
            sasl_password=None if password is None else password.get_secret_value(),
            ca_file=self.kafka_ssl_cafile,
            cert_file=self.kafka_ssl_certfile,
            key_file=self.kafka_ssl_keyfile,
        )
        return KafkaConfig(
            bootstrap_servers=self.bootstrap_servers,
            group_id=self.namespace,
            client_id=client_id,
            security=security,
            assignment=self.kafka_assignment,
            fetch_max_wait_ms=self.kafka_fetch_max_wait_ms,
            session_timeout_ms=self.kafka_session_timeout_ms,
        )

    def environment(self) -> dict[str, str]:
        """Every setting that is not the default as variables, for a child process. Holds the secrets."""
        variables = {}
        for name in type(self).model_fields:
            value = getattr(self, name)
            if value is not None and value != type(self).model_fields[name].default:
                plain = value.get_secret_value() if isinstance(value, SecretStr) else value
                variables[variable(name)] = str(plain).lower() if isinstance(plain, bool) else str(plain)
        return variables


def variable(field: str) -> str:
    """The variable of a field: `PERDURE_` and the name in capitals."""
    return PREFIX + field.upper()


def unknown_variables(names: Iterable[str]) -> list[str]:
    """Say of each variable that begins with `PERDURE_` and is no setting what was probably meant.

    Args:
        names: Those of the environment.
    """
    known = {variable(name) for name in Settings.model_fields}
    lines = []
    for name in sorted(names):
        if name.startswith(PREFIX) and name not in known and not name.startswith(_NOT_SETTINGS):
            # Without the prefix, by which any two of them are alike.
            close = difflib.get_close_matches(
                name.removeprefix(PREFIX), [each.removeprefix(PREFIX) for each in known], n=1
            )
            meant = f"did you mean {PREFIX}{close[0]}?" if close else "remove it."
            lines.append(f"{name} is set and means nothing; {meant}")
    return lines


def settings_table() -> str:
    """The settings as Markdown, in the order of their definition."""
    rows = [
        f"| `{variable(name)}` | {_default(field)} | {_bounds(field)} | {field.description} |"
        for name, field in Settings.model_fields.items()
    ]
    return "\n".join(["| variable | default | values | meaning |", "|---|---|---|---|", *rows])


def settings_page() -> str:
    """The text of `docs/settings.md`."""
    return (
        "# Settings\n\n"
        "Made by `python -m perdure.worker.settings > docs/settings.md`; change `worker/settings.py` instead.\n\n"
        "Every process reads these variables when it starts; flags of the command come before them. A value that is "
        "not allowed ends the command with exit code 2 and the variable's name. `_s` is in seconds, `_ms` in "
        "milliseconds.\n\n"
        f"{settings_table()}\n"
    )


def _problem(place: tuple[int | str, ...], message: str) -> str:
    name = str(place[0]) if place else ""
    if name not in Settings.model_fields:
        return f"There is no setting {name!r}: {message}."
    bounds = _bounds(Settings.model_fields[name])
    values = "" if bounds == _FREE else f" Values: {bounds}."
    return f"{variable(name)}: {message[0].lower()}{message[1:]}.{values}"


def _default(field: FieldInfo) -> str:
    default = field.default.get_secret_value() if isinstance(field.default, SecretStr) else field.default
    if default is None:
        return "-"
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def _bounds(field: FieldInfo) -> str:
    low = next((m.ge for m in field.metadata if isinstance(m, annotated_types.Ge)), None)
    high = next((m.le for m in field.metadata if isinstance(m, annotated_types.Le)), None)
    if low is not None or high is not None:
        return f"{low} to {high}"
    if field.annotation is bool:
        return "true, false"
    choices = getattr(field.annotation, "__args__", ())
    if choices and all(isinstance(choice, str) for choice in choices):
        return ", ".join(choices)
    return _FREE


if __name__ == "__main__":
    sys.stdout.write(settings_page())
