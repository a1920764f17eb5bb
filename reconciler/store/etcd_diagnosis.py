"""Why an etcd server cannot be reached, in words: gRPC mostly says that it is unavailable.

One connection is made by hand. With TLS 1.3 a server refuses a client's certificate only after the handshake has
succeeded on our side (RFC 8446 section 4.4.2), so the answer to a first HTTP/2 frame is waited for as well.
"""

from __future__ import annotations

import socket
import ssl

from reconciler.store.credentials import Credentials

TIMEOUT_S = 0.5  # of each step; a server that needs longer is no use to calls of a few seconds
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5)  # RFC 9113 section 3.4, empty SETTINGS

_CERTIFICATE_ALERTS = ("CERTIFICATE", "UNKNOWN_CA", "DECRYPT_ERROR", "HANDSHAKE_FAILURE", "ACCESS_DENIED")


def diagnose(host: str, port: int, credentials: Credentials | None) -> str:
    """What stands between us and this server, '' when nothing does. Takes two or three times `TIMEOUT_S` at most."""
    try:
        with socket.create_connection((host, port), TIMEOUT_S) as plain:
            if credentials is None:
                return _greeted(plain)
            with _context(credentials).wrap_socket(plain, server_hostname=host) as encrypted:
                return _greeted(encrypted)
    except ssl.SSLCertVerificationError as error:
        return f"its certificate is not accepted: {error.verify_message}"
    except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
        return "it closed the connection: does it speak TLS?"
    except ssl.SSLError as error:
        return _refusal(error)
    except socket.gaierror as error:
        return f"the name {host} is not known: {error.strerror}"
    except TimeoutError:
        return "it does not answer"
    except OSError as error:
        return error.strerror or str(error)


def _greeted(connection: socket.socket) -> str:
    connection.settimeout(TIMEOUT_S)
    connection.sendall(_PREFACE)
    if connection.recv(1):
        return ""
    return "it closed the connection" + ("" if isinstance(connection, ssl.SSLSocket) else ": does it want TLS?")


def _refusal(error: ssl.SSLError) -> str:
    reason = error.reason or str(error)
    if "ALERT" in reason and any(alert in reason for alert in _CERTIFICATE_ALERTS):
        return f"it refuses this host's client certificate ({reason.lower().replace('_', ' ')})"
    if reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"):
        return "it does not speak TLS"
    return f"TLS fails: {reason.lower().replace('_', ' ')}"


def _context(credentials: Credentials) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(credentials.ca))
    context.set_alpn_protocols(["h2"])
    if credentials.cert is not None:
        context.load_cert_chain(credentials.cert, credentials.key)
    return context
