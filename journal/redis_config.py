"""PURE but for reading certificate files. Where Redis is and how to log in, read from one URL.

Law: a password is in the URL or in `RedisConfig.password`, and in no message, `repr` or log line.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

from perdure.schemas.errors import SettingsError

_PORT: Final = 6379
_DATABASE_DIGITS_MAX: Final = 9
"""Of a database's number, which Redis keeps in 32 bits."""
_FORM = "redis[s]://[user[:password]@]host[:port][/db]"
_TLS_OPTIONS = frozenset({"ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname"})
_TRUE, _FALSE = ("1", "true", "yes"), ("0", "false", "no")


@dataclass(frozen=True, slots=True)
class RedisConfig:
    """One Redis server. Without `tls` the fields behind it mean nothing."""

    host: str = "localhost"
    port: int = _PORT
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

        Raises:
            SettingsError: It is not such a URL; the message does not show it, for it may hold a password.
        """
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
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
        tls = parts.scheme == "rediss"
        options = _options(parts.query, tls=tls)
        database = options.get("db", parts.path.strip("/") or "0")
        if not (database.isdecimal() and len(database) <= _DATABASE_DIGITS_MAX):
            raise SettingsError(f"The Redis URL names a database that is not a number: use {_FORM}.")
        return cls(
            host=host or "localhost",
            port=port or _PORT,
            username=unquote(parts.username) if parts.username else None,
            password=unquote(parts.password) if parts.password else None,
            db=int(database),
            tls=tls,
            tls_ca_file=options.get("ssl_ca_certs"),
            tls_cert_file=options.get("ssl_certfile"),
            tls_key_file=options.get("ssl_keyfile"),
            tls_verify=_verifies(options),
            tls_check_hostname=_verifies(options) and _flag(options, "ssl_check_hostname"),
        )

    @property
    def address(self) -> str:
        """Where it is, for people: `host:port/db`. Never a user or a password."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}" + (f"/{self.db}" if self.db else "")

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
    """`url` with `***` for its password; what is not a URL becomes `***` as a whole."""
    try:
        parts = urlsplit(url)
        password = parts.password
    except ValueError:
        return "***"
    # Without a scheme, or with / ? or # in the password, the parts are not what they look like.
    if not parts.scheme or "@" in parts.path + parts.query + parts.fragment:
        return "***"
    user, at, place = parts.netloc.rpartition("@")
    if not at:
        return url
    if password is None:
        # Maybe a user without a password, and maybe a password without its colon.
        return parts._replace(netloc=f"***@{place}").geturl()
    return parts._replace(netloc=f"{user.partition(':')[0]}:***@{place}").geturl()


def _options(query: str, *, tls: bool) -> dict[str, str]:
    options = dict(parse_qsl(query, keep_blank_values=True))
    unknown = sorted(options.keys() - ({"db"} | _TLS_OPTIONS if tls else {"db"}))
    # An option that would be ignored, such as ssl_cert_reqs without TLS, is a wish that is not fulfilled: say so.
    if unknown:
        known = ", ".join(["db", *sorted(_TLS_OPTIONS)])
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


def _flag(options: Mapping[str, str], name: str) -> bool:
    text = options.get(name, "true").lower()
    if text not in _TRUE + _FALSE:
        raise SettingsError(f"The Redis URL's {name} is neither true nor false: use one of them.")
    return text in _TRUE
