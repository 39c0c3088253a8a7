"""Server certificates, one good and the others each wrong in one way."""

from __future__ import annotations

import ssl
import warnings
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme

__all__ = ["Tls"]

_NAMES = ("127.0.0.1", "localhost")


@dataclass(frozen=True)
class Tls:
    """Contexts for `FakeIssuer(ssl_context=…)`. Who trusts `ca_file` accepts `good` and no other."""

    ca_file: Path
    good: ssl.SSLContext
    wrong_host: ssl.SSLContext
    expired: ssl.SSLContext
    other_authority: ssl.SSLContext
    tls_1_1: ssl.SSLContext

    @classmethod
    def made(cls, folder: Path) -> Tls:
        authority = trustme.CA()
        ca_file = folder / "ca.pem"
        authority.cert_pem.write_to_path(ca_file)
        now = datetime.now(UTC)
        return cls(
            ca_file=ca_file,
            good=_context(authority.issue_cert(*_NAMES)),
            wrong_host=_context(authority.issue_cert("elsewhere.example")),
            expired=_context(
                authority.issue_cert(*_NAMES, not_before=now - timedelta(days=9), not_after=now - timedelta(days=2))
            ),
            other_authority=_context(trustme.CA().issue_cert(*_NAMES)),
            tls_1_1=_old(_context(authority.issue_cert(*_NAMES))),
        )


def _context(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate.configure_cert(context)
    return context


def _old(context: ssl.SSLContext) -> ssl.SSLContext:
    """The same server, which speaks nothing newer than TLS 1.1."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it is deprecated: that is the point
        context.minimum_version = ssl.TLSVersion.TLSv1_1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")  # else OpenSSL 3 has no cipher left and fails for another reason
    return context
