"""PURE but for reading certificate files. Where Redis is and how to log in, read from one URL.

Law: a password is in the URL or in `RedisConfig.password`, and in no message, `repr` or log line.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

from perdure.schemas.errors import SettingsError

_PORT: Final = 6379
_DATABASE_DIGITS_MAX: Final = 9
"""Of a database's number, which Redis keeps in 32 bits."""
_SENTINEL_PORT: Final = 26379
_FORM = "redis[s]://[user[:password]@]host[:port][,host[:port] ...][/db]"

SERVERS_MAX: Final = 100
"""Servers that one URL may name. Three Sentinels or cluster nodes are enough to find all others."""

_PLACE_OPTIONS = frozenset({"db", "sentinel", "sentinel_username", "sentinel_password", "cluster"})
_TLS_OPTIONS = frozenset({"ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname"})
_TRUE, _FALSE = ("1", "true", "yes"), ("0", "false", "no")


class Address(NamedTuple):
    """Where one server listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class RedisConfig:
    """One Redis server, the Sentinels that know where it is, or some nodes of a cluster.

    Attributes:
        host: Of the server, of the first Sentinel, or of the first node.
        port: Likewise.
        more: Further Sentinels or nodes to ask.
        sentinel: The name by which the Sentinels know the primary; `None` where there are none.
        cluster: Whether it is a Redis Cluster.
        tls: Without it the fields behind it mean nothing.
    """

    host: str = "localhost"
    port: int = _PORT
    more: tuple[Address, ...] = ()
    sentinel: str | None = None
    sentinel_username: str | None = None
    sentinel_password: str | None = field(default=None, repr=False)
    cluster: bool = False
    # Not shown: redis://PASSWORD@host is a common slip.
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    db: int = 0
    tls: bool = False
    tls_ca_file: str | None = None
    tls_cert_file: str | None = None
    tls_key_file: str | None = None
    tls_verify: bool = True
    tls_check_hostname: bool = True

    @classmethod
    def from_url(cls, url: str) -> RedisConfig:
        """Read a URL of the form that redis-py and most services use.

        Args:
            url: `redis://`, or `rediss://` for TLS. A query may name `db`, and with `rediss://` the options
                `ssl_ca_certs`, `ssl_certfile`, `ssl_keyfile`, `ssl_cert_reqs` (required or none), `ssl_check_hostname`.
                With `sentinel=<name>` the hosts are Sentinels that know the primary by that name, with
                `sentinel_username` and `sentinel_password` for their own login; with `cluster=true` they are nodes.

        Raises:
            SettingsError: It is not such a URL; the message does not show it, for it may hold a password.
        """
        try:
            parts = urlsplit(url)
            login, _, places = parts.netloc.rpartition("@")
            port = _SENTINEL_PORT if "sentinel=" in parts.query else _PORT
            first, *more = [_address(place, port) for place in places.split(",")]
        except ValueError as error:
            raise SettingsError(f"The Redis URL cannot be read: use {_FORM}.") from error
        if "@" in parts.path + parts.query + parts.fragment:
            # A name that would be shown as an unknown option may be the end of the password.
            raise SettingsError(
                f"The Redis URL has an @ behind the host: in a password, write / as %2F, ? as %3F, # as %23. "
                f"Use {_FORM}."
            )
        if parts.scheme not in ("redis", "rediss"):
            raise SettingsError(f"The Redis URL begins neither with redis:// nor with rediss://: use {_FORM}.")
        options = _options(parts.query, tls=parts.scheme == "rediss")
        database = options.get("db", parts.path.strip("/") or "0")
        if not (database.isdecimal() and len(database) <= _DATABASE_DIGITS_MAX):
            raise SettingsError(f"The Redis URL names a database that is not a number: use {_FORM}.")
        user, _, password = login.partition(":")
        config = cls(
            host=first.host,
            port=first.port,
            more=tuple(more),
            sentinel=options.get("sentinel"),
            sentinel_username=options.get("sentinel_username"),
            sentinel_password=options.get("sentinel_password"),
            cluster=_flag(options, "cluster", default="false"),
            username=unquote(user) or None,
            password=unquote(password) or None,
            db=int(database),
            tls=parts.scheme == "rediss",
            tls_ca_file=options.get("ssl_ca_certs"),
            tls_cert_file=options.get("ssl_certfile"),
            tls_key_file=options.get("ssl_keyfile"),
            tls_verify=_verifies(options),
            tls_check_hostname=_verifies(options) and _flag(options, "ssl_check_hostname", default="true"),
        )
        config._check()
        return config

    @property
    def servers(self) -> tuple[Address, ...]:
        """All servers that are named: one, or Sentinels, or nodes."""
        return (Address(self.host, self.port), *self.more)

    @property
    def address(self) -> str:
        """Where it is, for people: `host:port/db`. Never a user or a password."""
        places = ",".join(map(str, self.servers)) + (f"/{self.db}" if self.db else "")
        if self.sentinel is not None:
            return f"{self.sentinel} of the Sentinels {places}"
        return f"cluster {places}" if self.cluster else places

    def at(self, place: Address) -> RedisConfig:
        """One server of them by itself, with the same login."""
        return replace(self, host=place.host, port=place.port, more=(), sentinel=None, cluster=False)

    def sentinel_at(self, place: Address) -> RedisConfig:
        """One of the Sentinels by itself, with their login."""
        return replace(self.at(place), db=0, username=self.sentinel_username, password=self.sentinel_password)

    def _check(self) -> None:
        """Refuse what does not go together.

        Raises:
            SettingsError: It does not.
        """
        if len(self.servers) > SERVERS_MAX:
            raise SettingsError(f"The Redis URL names {len(self.servers)} servers: {SERVERS_MAX} are the most.")
        if self.cluster and self.sentinel is not None:
            raise SettingsError("The Redis URL has both sentinel and cluster: use the one that there is.")
        if self.cluster and self.db:
            raise SettingsError("The Redis URL names a database, and a cluster has only 0: leave it out.")
        if self.more and not (self.cluster or self.sentinel):
            raise SettingsError(
                "The Redis URL names several hosts: add ?sentinel=<name of the primary> or ?cluster=true, or name one."
            )
        if self.sentinel == "" or (self.sentinel is None and (self.sentinel_username or self.sentinel_password)):
            raise SettingsError("The Redis URL speaks of Sentinels without sentinel=<name of the primary>: add it.")

    def ssl_context(self) -> ssl.SSLContext | None:
        """Make the context for a connection; `None` without TLS. Reads the certificate files.

        Raises:
            SettingsError: A file is not there, or is not what it should be.
        """
        if not self.tls:
            return None
        try:
            context = ssl.create_default_context(cafile=self.tls_ca_file)
            if self.tls_cert_file:
                context.load_cert_chain(self.tls_cert_file, self.tls_key_file)
        except (OSError, ssl.SSLError) as error:
            files = ", ".join(f for f in (self.tls_ca_file, self.tls_cert_file, self.tls_key_file) if f)
            raise SettingsError(f"The certificate files of the Redis URL ({files}) cannot be used: {error}.") from error
        context.check_hostname = self.tls_check_hostname
        if not self.tls_verify:
            context.verify_mode = ssl.CERT_NONE
        return context


def mask_url(url: str) -> str:
    """`url` with `***` for its passwords; what is not a URL becomes `***` as a whole."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "***"
    # Without a scheme, or with / ? or # in the password, the parts are not what they look like.
    if not parts.scheme or "@" in parts.path + parts.query + parts.fragment:
        return "***"
    login, at, place = parts.netloc.rpartition("@")
    if login:
        # A user without a colon may be a password that has lost it.
        login = f"{login.partition(':')[0]}:***" if ":" in login else "***"
    query = re.sub(r"((?:^|&)sentinel_password=)[^&]*", r"\1***", parts.query)
    return parts._replace(netloc=f"{login}{at}{place}", query=query).geturl()


_TLS_MENDS = (
    ("hostname mismatch", "connect by a name that its certificate has, or set ssl_check_hostname=false"),
    ("ip address mismatch", "connect by a name that its certificate has, or set ssl_check_hostname=false"),
    ("certificate has expired", "renew its certificate"),
    ("certificate_verify_failed", "let ssl_ca_certs name the PEM file of the authority that signed its certificate"),
    ("certificate_required", "name the client's certificate with ssl_certfile and ssl_keyfile"),
    ("unknown_ca", "have the client's certificate (ssl_certfile) signed by an authority that the server trusts"),
    ("wrong_version_number", "if it speaks no TLS at that port, use redis://, or its TLS port"),
    ("record_layer_failure", "if it speaks no TLS at that port, use redis://, or its TLS port"),
)


def unreachable(address: str, error: BaseException, *, tls: bool) -> str:
    """Say that a server cannot be reached, why, and what mends it.

    Args:
        address: Where it should be.
        error: What the attempt to connect raised.
        tls: Whether TLS was tried.
    """
    why = str(error) or "no answer in time"
    plain = why.lower().replace(" ", "_")
    for symptom, mend in _TLS_MENDS:
        if symptom.replace(" ", "_") in plain:
            return f"Redis {address} cannot be spoken to with TLS ({why}): {mend}, in PERDURE_REDIS_URL."
    hint = ""
    if "closed" in plain or "reset" in plain:
        wants_one = (
            "; if it asks clients for certificates, name one that is signed by an authority that the server trusts "
            "with ssl_certfile and ssl_keyfile"
        )
        hint = wants_one if tls else "; if it speaks TLS, use rediss://"
    elif tls and "time" in plain:
        hint = "; if it speaks no TLS at that port, use redis://, or its TLS port"
    return f"Redis {address} does not answer ({why}): start it, or mend PERDURE_REDIS_URL{hint}."


def _address(place: str, port: int) -> Address:
    parts = urlsplit(f"//{place}")
    return Address(parts.hostname or "localhost", parts.port or port)


def _options(query: str, *, tls: bool) -> dict[str, str]:
    options = dict(parse_qsl(query, keep_blank_values=True))
    unknown = sorted(options.keys() - (_PLACE_OPTIONS | _TLS_OPTIONS if tls else _PLACE_OPTIONS))
    # An option that would be ignored, such as ssl_cert_reqs without TLS, is a wish that is not fulfilled: say so.
    if unknown:
        known = ", ".join([*sorted(_PLACE_OPTIONS), *sorted(_TLS_OPTIONS)])
        raise SettingsError(
            f"The Redis URL has options that mean nothing here ({', '.join(unknown)}): "
            f"there are {known}, and those of TLS need rediss://."
        )
    return options


def _verifies(options: Mapping[str, str]) -> bool:
    match options.get("ssl_cert_reqs", "required"):
        case "required":
            return True
        case "none":
            return False
        case _:
            raise SettingsError("The Redis URL's ssl_cert_reqs is neither required nor none: use one of them.")


def _flag(options: Mapping[str, str], name: str, *, default: str) -> bool:
    text = options.get(name, default).lower()
    if text not in _TRUE + _FALSE:
        raise SettingsError(f"The Redis URL's {name} is neither true nor false: use one of them.")
    return text in _TRUE
