"""What nats-server says with `-ERR`, and why a connection can't be had: in words that tell an operator what to do.

The server's texts are those of its source (server/client.go, errors.go, parser.go, accounts.go). After most of them it
closes the connection; some it only says. None of them ends more than the one connection: the next may be to another
server, or to the same one with other limits.
"""

from __future__ import annotations

import socket
import ssl

from nats import errors as nats_errors

UNAUTHORIZED = "authorization violation"

SAID_ONLY = (
    "permissions violation",
    "maximum subscriptions exceeded",
    "invalid subject",
    "invalid publish subject",
)
"""The connection goes on after these."""

REFUSALS = (
    UNAUTHORIZED,
    "user authentication expired",
    "user authentication revoked",
    "account authentication expired",
    "failed account registration",
    "invalid client protocol",
    "no responders requires headers support",
    "attempted to connect to",
    "secure connection - tls required",
)
"""The next attempt will hear the same, unless somebody changes what the server or this process is configured with."""

TOO_MANY_SUBSCRIPTIONS = "maximum subscriptions exceeded"
LINE_TOO_LONG = "maximum control line exceeded"
SUBSCRIPTION_DENIED = "permissions violation for subscription to "
PUBLISH_DENIED = "permissions violation for publish to "

MAY_WANT_TLS = ", or wants TLS before it says anything (handshake_first: TIDEGATE_NATS_TLS_FIRST=true)"

NOT_FIRST = "the server does not begin with the TLS handshake: unset TIDEGATE_NATS_TLS_FIRST"

_CLIENT_FILES = "TIDEGATE_NATS_CERT_FILE and TIDEGATE_NATS_KEY_FILE name it"

_ADVICE = {
    UNAUTHORIZED: "NATS refuses user and password, or the token, of TIDEGATE_NATS_URL",
    "user authentication expired": "the JWT is over: TIDEGATE_NATS_CREDS_FILE needs a newer one",
    "maximum connections exceeded": "raise max_connections of NATS",
    "maximum account active connections exceeded": "raise the account's limit of connections",
    "maximum payload violation": "a message was over NATS's max_payload",
    TOO_MANY_SUBSCRIPTIONS: "raise max_subscriptions of NATS",
    LINE_TOO_LONG: "raise max_control_line of NATS",
    "secure connection - tls required": "the TLS handshake took too long, or was none",
}


class ServerError(nats_errors.Error):
    """The server has said `-ERR`: `text` as it wrote it, in lower case."""

    def __init__(self, text: str) -> None:
        self.text = text.lower()
        self._quoted = text
        self.refuses = self.text.startswith(REFUSALS)
        advice = next((advice for start, advice in _ADVICE.items() if self.text.startswith(start)), "")
        super().__init__(f"NATS says: {text}" + (f" ({advice})" if advice else ""))

    @classmethod
    def of(cls, line: bytes) -> ServerError:
        """Of a line `-ERR '<text>'`."""
        return cls(line[4:].strip().strip(b"'").decode("utf-8", "backslashreplace")[:512] or "an error without a text")

    @property
    def denied(self) -> str | None:
        """The subject of a subscription that is not allowed, if it says so."""
        return self._subject_after(SUBSCRIPTION_DENIED)

    @property
    def unwritable(self) -> str | None:
        """The subject that this process may not write to, if it says so."""
        return self._subject_after(PUBLISH_DENIED)

    def _subject_after(self, start: str) -> str | None:
        if not self.text.startswith(start):
            return None
        return self._quoted[len(start) :].partition('"')[2].partition('"')[0]

    @property
    def unauthorized(self) -> bool:
        """Whether the server does not take what it was shown."""
        return self.text.startswith(UNAUTHORIZED)

    @property
    def said_only(self) -> bool:
        """Whether the connection goes on."""
        return self.text.startswith(SAID_ONLY)


class ConnectFailed(nats_errors.Error):
    """No connection came about. `refuses`: the next attempt will fail likewise, unless a configuration changes."""

    def __init__(self, reason: str, *, refuses: bool = False) -> None:
        self.refuses = refuses
        super().__init__(reason)


def explained(error: BaseException, *, tls: bool, first: bool) -> nats_errors.Error:
    """What kept a connection from coming about, as ServerError or ConnectFailed.

    `tls` says whether one with TLS was asked for, `first` whether the handshake was to come before anything else.
    """
    if isinstance(error, ServerError | ConnectFailed):
        return error
    if isinstance(error, ssl.SSLCertVerificationError):
        return ConnectFailed(
            f"the server's certificate is not trusted ({error.verify_message}): its CA is named by "
            "TIDEGATE_NATS_CA_FILE, its name by the address",
            refuses=True,
        )
    if isinstance(error, ssl.SSLError):
        return ConnectFailed(_tls(error, first), refuses=True)
    if isinstance(error, TimeoutError):
        hint = "" if first else MAY_WANT_TLS
        return ConnectFailed(f"it takes the connection and does not answer in time{hint}")
    if isinstance(error, EOFError | nats_errors.UnexpectedEOF | ConnectionResetError | BrokenPipeError):
        return ConnectFailed("it closed the connection" + (" during the TLS handshake, perhaps" if tls else ""))
    if isinstance(error, ConnectionRefusedError):
        return ConnectFailed("nobody listens there")
    if isinstance(error, socket.gaierror):
        return ConnectFailed("the name is not known")
    if isinstance(error, OSError):
        return ConnectFailed(error.strerror or str(error) or type(error).__name__)
    return ConnectFailed(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)


def _tls(error: ssl.SSLError, first: bool) -> str:
    reason = (error.reason or str(error)).replace("_", " ").lower()
    if "certificate required" in reason or "bad certificate" in reason or "unknown ca" in reason:
        return f"the server does not take this client's certificate ({reason}), or wants one: {_CLIENT_FILES}"
    if first and ("wrong version number" in reason or "packet length too long" in reason or "record layer" in reason):
        return NOT_FIRST
    return f"the TLS handshake failed ({reason})"
