"""Settings of a process: one frozen Struct, read once from the environment, all faults said at once."""

from __future__ import annotations

import contextlib
import ipaddress
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta
from msgspec.structs import FieldInfo, fields

from tidegate_common.auth.settings import SECRET, AuthSettings
from tidegate_common.bus.jobs.enqueue import MAX_PER_OWNER
from tidegate_common.bus.streams.definitions import StreamLimits
from tidegate_common.bus.streams.patience import Patience
from tidegate_common.bus.wire import addresses
from tidegate_common.bus.wire.addresses import Tls
from tidegate_common.bus.wire.key_file import KeyFile
from tidegate_common.contract.subjects import Subjects
from tidegate_common.errors import ConfigError, InvalidField
from tidegate_common.runtime.guard import HttpLimits
from tidegate_common.runtime.hosts import HOST_NAME, canonical
from tidegate_common.runtime.listening import is_loopback, plain_host

Port = Annotated[int, Meta(ge=0, le=65535)]
Positive = Annotated[float, Meta(gt=0)]
Seconds = Annotated[float, Meta(ge=0)]
Count = Annotated[int, Meta(ge=0)]
AtLeastOne = Annotated[int, Meta(ge=1)]


def env(name: str, *, secret: bool = False) -> Any:
    """Annotation for a field that is read from the variable `name` and not from `TIDEGATE_<FIELD>`."""
    return Meta(extra={"env": name, "secret": secret})


class CommonSettings(AuthSettings, frozen=True, kw_only=True):
    """What every process reads. A field `log_level` comes from the variable `TIDEGATE_LOG_LEVEL`."""

    nats_url: Annotated[str, SECRET] = "nats://127.0.0.1:4222"
    """Comma list of servers, with `tls://` if they are to be spoken to in TLS alone."""
    nats_ca_file: str = ""
    """Certificates of the authorities that NATS's own is checked against, PEM; empty: the system's."""
    nats_cert_file: str = ""
    """This client's certificate, PEM, if NATS asks for one."""
    nats_key_file: str = ""
    """Its key, if that is not in the same file."""
    nats_creds_file: str = ""
    """A user's JWT and the seed of its key, if NATS knows users by those: in place of a password in `nats_url`."""
    nats_nkey_file: str = ""
    """A user's seed alone, if NATS knows its public key."""
    nats_tls_first: bool = False
    """TLS begins before NATS says anything (its `handshake_first`)."""
    nats_refused_seconds: Positive = 60
    """A process that NATS refuses for so long ends, with exit code 3."""
    namespace: str = "tg"
    """First token of every subject and of the stream names."""
    host: str = "127.0.0.1"
    port: Port = 8000
    allowed_hosts: tuple[str, ...] = ()
    """Names that requests may be for (`Host`), beside localhost and addresses."""
    ignored_parameters: tuple[str, ...] = ()
    """Names in query strings that are not refused though nobody reads them; `x_*` stands for all that begin so."""
    trusted_proxies: tuple[str, ...] = ()
    """Addresses or networks whose X-Forwarded-For is believed."""
    max_header_bytes: AtLeastOne = 32_768
    head_seconds: Positive = 10
    """From a connection's beginning, or a later request's, to the end of the request's head."""
    body_seconds: Positive = 30
    """For each 64 KiB of a body, or the rest of it."""
    keep_alive_seconds: Positive = 75
    """How long a connection waits for another request: longer than the proxy in front keeps its own."""
    max_sockets: AtLeastOne = 4096
    """Connections of this process at most, whatever they are for."""
    max_bodies_bytes: AtLeastOne = 64 << 20
    """What all bodies that are not there as a whole may hold together."""
    drain_seconds: Positive = 10
    """How long stopping may take."""
    log_level: str = "INFO"
    publish_deadline_seconds: Positive = 3
    """How long a publish is tried again before it is refused with 503."""
    election_seconds: Annotated[float, Meta(ge=0, le=60)] = 12
    """How long a publish or a new stream waits, from the moment when the stream was seen to have no leader."""
    max_waiting: AtLeastOne = 2_000
    """Requests that may wait for NATS at once, in this process."""
    max_waiting_bytes: AtLeastOne = 64 << 20
    """Bytes of events that they may have in hand together."""
    events_max_age_seconds: AtLeastOne = 86_400
    events_max_bytes: AtLeastOne = 1 << 30
    events_max_per_subject: AtLeastOne = 100_000
    jobs_max_queued: AtLeastOne = 10_000
    jobs_max_bytes: AtLeastOne = 1 << 29
    jobs_max_per_owner: AtLeastOne = MAX_PER_OWNER
    """Jobs of one owner that the queue holds, those in work too; one more gets 429."""
    replicas: Annotated[int, Meta(ge=1, le=5)] = 1
    """Servers that keep each stream."""

    def faults(self) -> list[str]:
        """Rules that a single field's type does not say; subclasses add theirs."""
        found = []
        try:
            Subjects.of(self.namespace)
        except InvalidField as error:
            found.append(str(error))
        try:
            plain_host(self.host)
        except ValueError as error:
            found.append(f"TIDEGATE_HOST: {error}")
        try:
            addresses.read(self.nats_url)
        except ValueError as error:
            found.append(f"TIDEGATE_NATS_URL: {error}")
        try:
            self.nats_tls()
        except ValueError as error:
            found.append(str(error))
        if self.metrics_port and self.metrics_port == self.port:
            found.append("TIDEGATE_METRICS_PORT: another port than TIDEGATE_PORT")
        found += self._key_faults()
        found += self.auth_faults()
        if not self.auth and not is_loopback(self.host) and not found:
            found.append(
                f"TIDEGATE_HOST: {self.host} is reachable by others and nobody would be asked who they are; "
                "set TIDEGATE_AUTH=token to ask everyone, TIDEGATE_AUTH=open to accept that, or serve 127.0.0.1"
            )
        found += [
            f"TIDEGATE_ALLOWED_HOSTS: {name} is no host name: names alone, without scheme or port (example.com)"
            for name in self.allowed_hosts
            if not HOST_NAME.fullmatch(canonical(name))
        ]
        for network in self.trusted_proxies:
            try:
                ipaddress.ip_network(network, strict=False)
            except ValueError:
                found.append(f"TIDEGATE_TRUSTED_PROXIES: {network} is no address and no network")
        if self.log_level not in ("DEBUG", "INFO", "WARNING", "ERROR"):
            found.append("TIDEGATE_LOG_LEVEL: one of DEBUG, INFO, WARNING, ERROR")
        return found

    def nats_tls(self) -> Tls:
        """How TLS is spoken with NATS. Raises ValueError if a file can't be used."""
        return addresses.tls_of(self.nats_ca_file, self.nats_cert_file, self.nats_key_file, first=self.nats_tls_first)

    def nats_key(self) -> KeyFile | None:
        """What NATS is shown in place of a password."""
        if self.nats_creds_file:
            return KeyFile("TIDEGATE_NATS_CREDS_FILE", self.nats_creds_file, jwt=True)
        return KeyFile("TIDEGATE_NATS_NKEY_FILE", self.nats_nkey_file, jwt=False) if self.nats_nkey_file else None

    def _key_faults(self) -> list[str]:
        found = []
        if self.nats_creds_file and self.nats_nkey_file:
            found.append("TIDEGATE_NATS_CREDS_FILE, TIDEGATE_NATS_NKEY_FILE: one of them, not both")
        key = self.nats_key()
        if key is None:
            return found
        with contextlib.suppress(ValueError):  # said already
            if any(each.user is not None for each in addresses.read(self.nats_url)):
                found.append(f"{key.variable}: addresses with a key have no user or password (TIDEGATE_NATS_URL)")
        try:
            key.credentials("")
        except ValueError as error:
            found.append(str(error))
        return found

    def subjects(self) -> Subjects:
        return Subjects.of(self.namespace)

    def http_limits(self) -> HttpLimits:
        return HttpLimits(
            head_bytes=self.max_header_bytes,
            head_seconds=self.head_seconds,
            body_seconds=self.body_seconds,
            keep_alive_seconds=self.keep_alive_seconds,
            sockets=self.max_sockets,
            bodies_bytes=self.max_bodies_bytes,
        )

    def patience(self) -> Patience:
        return Patience(
            deadline_seconds=self.publish_deadline_seconds,
            election_seconds=self.election_seconds,
            most=self.max_waiting,
            most_bytes=self.max_waiting_bytes,
            copies=self.replicas > 1,
        )

    def stream_limits(self) -> StreamLimits:
        return StreamLimits(
            max_age_seconds=self.events_max_age_seconds,
            max_bytes=self.events_max_bytes,
            max_per_subject=self.events_max_per_subject,
            max_jobs=self.jobs_max_queued,
            max_job_bytes=self.jobs_max_bytes,
            replicas=self.replicas,
            identity=self.asks,
        )


S = TypeVar("S", bound=CommonSettings)


def load(kind: type[S], environ: Mapping[str, str]) -> S:
    """`kind` filled from `environ`; an empty variable counts as not set. Raises ConfigError with all faults.

    Each secret may be in a file, which its variable with `_FILE` names. No fault repeats one.
    """
    hints = get_type_hints(kind, include_extras=True)
    values: dict[str, Any] = {}
    faults: list[str] = []
    for field in fields(kind):
        hint = hints[field.name]
        name, secret = variable(field, hint), is_secret(hint)
        try:
            text = _secret(name, environ) if secret else environ.get(name, "")
            if text:
                raw: Any = _parts(text) if _is_list(hint) else text
                values[field.name] = msgspec.convert(raw, hint, strict=False)
        except msgspec.ValidationError as error:
            said = f"one of {', '.join(get_args(hint))}" if get_origin(hint) is Literal else str(error)
            faults.append(f"{name}: {said}" + ("" if secret else f", got {text!r}"))
        except ValueError as error:
            faults.append(str(error))
    if not faults:
        settings = kind(**values)
        faults = settings.faults()
        if not faults:
            return settings
    raise ConfigError(faults)


def variable(field: FieldInfo, hint: Any) -> str:
    """The environment variable that `field` is read from."""
    return str(_extra(hint).get("env", f"TIDEGATE_{field.name.upper()}"))


def is_secret(hint: Any) -> bool:
    """Whether a field's value is one: it stands in no text, and may be in a file."""
    return bool(_extra(hint).get("secret"))


def _extra(hint: Any) -> dict[str, Any]:
    """What the annotations of a field say beside its type."""
    extras = [meta.extra for meta in getattr(hint, "__metadata__", ()) if isinstance(meta, Meta) and meta.extra]
    return {name: value for extra in extras for name, value in extra.items()}


def _secret(name: str, environ: Mapping[str, str]) -> str:
    """The secret of that name, from its variable or its file. Raises ValueError."""
    text, path = environ.get(name, ""), environ.get(f"{name}_FILE", "")
    if not path:
        return text
    if text:
        raise ValueError(f"{name}, {name}_FILE: one of them, not both")
    try:
        found = Path(path).read_text(encoding="utf-8").rstrip("\r\n")
    except OSError as error:
        raise ValueError(f"{name}_FILE: {path} can't be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise ValueError(f"{name}_FILE: {path} is no text in UTF-8") from None
    if not found:
        raise ValueError(f"{name}_FILE: {path} is empty")
    return found


def _parts(text: str) -> list[str]:
    """The parts of a comma list; in a file they may have a line each."""
    return [part.strip() for part in re.split(r"[,\r\n]", text) if part.strip()]


def _is_list(hint: Any) -> bool:
    plain = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    return get_origin(plain) is tuple
