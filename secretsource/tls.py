"""Whom we trust, and as whom we come: TLS contexts that verify certificate and host name, always.

SSL_CERT_FILE, SSL_CERT_DIR and SSLKEYLOGFILE are not obeyed: who sets the environment must not decide who may read.
"""

from __future__ import annotations

import os
import ssl
import sys

from .errors import ConfigurationError

__all__ = ["certificate_fault", "checked_certificate", "trusting"]

# OpenSSL's verify codes, in our words.
_CERTIFICATE_FAULTS = {
    9: "its certificate is not valid yet",
    10: "its certificate has expired",
    18: "its certificate is signed by itself",
    19: "its certificate comes from an authority that is not trusted",
    20: "its certificate comes from an authority that is not trusted",
    21: "its certificate comes from an authority that is not trusted",
    62: "its certificate is for another host name",
    64: "its certificate is for another address",
}


def certificate_fault(error: ssl.SSLCertVerificationError) -> str:
    """Why a server's certificate is refused."""
    return _CERTIFICATE_FAULTS.get(error.verify_code, f"its certificate is refused (code {error.verify_code})")


def checked_certificate(client_cert: object) -> tuple[str, str | None] | None:
    """The files of a client certificate and its key (None: in the same). ConfigurationError."""
    if client_cert is None:
        return None
    given = client_cert if isinstance(client_cert, (tuple, list)) else (client_cert,)
    paths = [os.fspath(path) for path in given if isinstance(path, (str, os.PathLike))]
    if len(paths) != len(given) or len(paths) not in (1, 2):
        raise ConfigurationError(
            "client_cert= is the path of a PEM file with certificate and key, or a pair of paths, (certificate, key)"
        )
    return paths[0], paths[1] if len(paths) == 2 else None


def trusting(ca_file: str | None, client_cert: tuple[str, str | None] | None = None) -> ssl.SSLContext:
    """A context that trusts the authorities in a PEM file, or in all files of a folder, else those of the system.

    Raises ConfigurationError for files that cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # verifies certificate and host name
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if hasattr(context, "keylog_filename"):
        context.keylog_filename = None  # type: ignore[assignment] # SSLKEYLOGFILE would have the session keys written
    failure = None
    try:
        if ca_file is None:
            _trust_the_system(context)
        else:
            for path in _files(ca_file):
                context.load_verify_locations(path)
    except (OSError, ValueError) as error:  # SSLError is an OSError; a NUL in the name
        failure = type(error).__name__
    if failure is not None:
        name = "what this system trusts" if ca_file is None else f"ca_file={ca_file!r}"
        raise ConfigurationError(
            f"{name} cannot be used as certificates of authorities ({failure})",
            hint="Give ca_file=, a file of one or more certificates in PEM form",
        )
    if client_cert is not None:
        _identify(context, *client_cert)
    return context


def _identify(context: ssl.SSLContext, certificate: str, key: str | None) -> None:
    failure = None
    try:
        # A password would be asked for at the terminal; nobody is there to type it.
        context.load_cert_chain(certificate, key, password=lambda: "")
    except (OSError, ValueError) as error:
        failure = type(error).__name__
    if failure is not None:
        raise ConfigurationError(
            f"client_cert={certificate!r} and its key cannot be used ({failure})",
            hint="Give PEM files that belong together and are readable, with the key not encrypted",
        )


def _files(path: str) -> list[str]:
    if not os.path.isdir(path):
        return [path]
    return [entry.path for entry in os.scandir(path) if entry.is_file()] or [path]


def _trust_the_system(context: ssl.SSLContext) -> None:
    """The system's authorities, or certifi's where there are none. SSL_CERT_FILE and SSL_CERT_DIR are not obeyed."""
    if sys.platform == "win32":
        for store in ("CA", "ROOT"):
            for certificate, encoding, _ in ssl.enum_certificates(store):
                if encoding == "x509_asn":
                    context.load_verify_locations(cadata=certificate)
        return
    paths = ssl.get_default_verify_paths()
    file = paths.openssl_cafile if os.path.isfile(paths.openssl_cafile) else None
    folder = paths.openssl_capath if _has_entries(paths.openssl_capath) else None
    if file is None and folder is None:
        import certifi

        file = certifi.where()
    context.load_verify_locations(file, folder)


def _has_entries(folder: str) -> bool:
    try:
        with os.scandir(folder) as entries:
            return next(entries, None) is not None
    except OSError:
        return False
