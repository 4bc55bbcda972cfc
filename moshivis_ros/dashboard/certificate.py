"""A certificate of our own: browsers give the microphone to other machines over HTTPS only."""

from __future__ import annotations

import datetime
import ipaddress
import os
import socket
import ssl
from pathlib import Path

from moshivis_ros.errors import MissingDependencyError, OutputError
from moshivis_ros.outputs import make_folder

DAYS = 3650


def certificate(host: str) -> ssl.SSLContext:
    """The certificate of this user and host, made once and kept in ~/.cache/moshivis_ros, so that a browser that was told
    to trust it once goes on to. Raises MissingDependencyError, OutputError.
    """
    folder = make_folder(
        Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "moshivis_ros" / "tls"
    )
    file = folder / f"{host.replace(':', '_')}.pem"
    if not file.exists():
        _write(file, _make(host))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(file)
    except (OSError, ssl.SSLError) as error:
        raise OutputError(f"{file}: not a certificate that can be used ({error}); delete it") from error
    return context


def _write(file: Path, text: bytes) -> None:
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(text)
    except OSError as error:
        raise OutputError(f"{file}: cannot be written ({error.strerror})") from error


def _make(host: str) -> bytes:
    """Key and certificate, PEM."""
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
    except ImportError as error:
        raise MissingDependencyError("tls needs cryptography: `pip install cryptography`") from error
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "moshivis_ros dashboard")])
    names: list[x509.GeneralName] = [x509.DNSName(n) for n in {"localhost", socket.gethostname()}]
    try:
        names.append(x509.IPAddress(ipaddress.ip_address(host)))
    except ValueError:
        names.append(x509.DNSName(host))
    now = datetime.datetime.now(datetime.timezone.utc)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=DAYS))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    private: bytes = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public: bytes = made.public_bytes(serialization.Encoding.PEM)
    return private + public
