"""TLS contexts: whom we trust, and as whom we come."""

from __future__ import annotations

import ssl
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import certifi
import pytest
import trustme

from secretsource.clock import Deadline
from secretsource.errors import ConfigurationError, IssuerUnavailable
from secretsource.exchange import Outgoing
from secretsource.testing import Answer, LoopbackServer
from secretsource.tls import certificate_fault, checked_certificate, trusting
from secretsource.transport import Transport


class Authority:
    """An authority in files, with a server that asks for a certificate of it."""

    def __init__(self, folder: Path) -> None:
        self._authority = trustme.CA()
        self.folder = folder
        self.file = folder / "authorities" / "ca.pem"
        self.file.parent.mkdir()
        self._authority.cert_pem.write_to_path(self.file)
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=self.file)
        self.context.verify_mode = ssl.CERT_REQUIRED
        self._authority.issue_cert("127.0.0.1").configure_cert(self.context)

    def certificate(self, authority: trustme.CA | None = None) -> tuple[str, str]:
        """A client's certificate and its key, each in a file."""
        issued = (authority or self._authority).issue_cert("pos.example.com", common_name="pos")
        files = self.folder / "client.pem", self.folder / "client.key"
        issued.cert_chain_pems[0].write_to_path(files[0])
        issued.private_key_pem.write_to_path(files[1])
        return str(files[0]), str(files[1])


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def url(authority: Authority) -> Iterator[str]:
    with LoopbackServer(lambda incoming: Answer(body=b"{}"), ssl_context=authority.context) as server:
        yield f"{server.origin}/"


def status(url: str, **options: Any) -> int:
    transport = Transport(**options)
    return transport.send(Outgoing("GET", url, {}), Deadline(30.0), phase="a request").status


def test_a_client_certificate_is_shown_from_two_files_or_from_one(authority: Authority, url: str) -> None:
    certificate, key = authority.certificate()
    assert status(url, ca_file=authority.file, client_cert=(certificate, key)) == 200
    both = authority.folder / "both.pem"
    both.write_text(Path(certificate).read_text() + Path(key).read_text())
    assert status(url, ca_file=authority.file, client_cert=str(both)) == 200


def test_without_one_or_with_another_authoritys_the_server_ends_the_connection(authority: Authority, url: str) -> None:
    foreign = authority.certificate(trustme.CA())
    for client_cert in (None, foreign):
        with pytest.raises(IssuerUnavailable) as caught:
            status(url, ca_file=authority.file, client_cert=client_cert)
        assert (caught.value.__cause__, caught.value.__context__) == (None, None)


def test_all_files_of_a_folder_are_authorities(authority: Authority, url: str) -> None:
    trustme.CA().cert_pem.write_to_path(authority.file.parent / "another.pem")
    assert status(url, ca_file=authority.file.parent, client_cert=authority.certificate()) == 200


def test_a_certificate_exchanged_on_disk_is_shown_once_the_transport_forgets(authority: Authority, url: str) -> None:
    pair = authority.certificate(trustme.CA())
    transport = Transport(ca_file=authority.file, client_cert=pair)
    with pytest.raises(IssuerUnavailable):
        transport.send(Outgoing("GET", url, {}), Deadline(30.0), phase="a request")
    assert authority.certificate() == pair
    transport.forget()
    assert transport.send(Outgoing("GET", url, {}), Deadline(30.0), phase="a request").status == 200


def test_files_that_are_no_certificate_and_key_are_a_configuration_error(authority: Authority) -> None:
    certificate, key = authority.certificate()
    for wrong in ((certificate, certificate), (key, key), (certificate, "absent.key"), ("a\x00b", key)):
        with pytest.raises(ConfigurationError, match="cannot be used") as caught:
            trusting(None, wrong)
        assert (caught.value.__cause__, caught.value.__context__) == (None, None)


def test_a_key_under_a_password_is_refused_and_nobody_is_asked_for_it(authority: Authority) -> None:
    from cryptography.hazmat.primitives import serialization

    certificate, key = authority.certificate()
    loaded = serialization.load_pem_private_key(Path(key).read_bytes(), None)
    Path(key).write_bytes(
        loaded.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"not-a-real-password"),
        )
    )
    with pytest.raises(ConfigurationError, match="not encrypted"):
        trusting(None, (certificate, key))


@pytest.mark.parametrize("wrong", [3, ("a", "b", "c"), (), ("a", None), b"cert.pem"])
def test_what_is_no_path_of_a_certificate_is_refused(wrong: object) -> None:
    with pytest.raises(ConfigurationError, match="client_cert="):
        checked_certificate(wrong)


def test_a_context_verifies_and_lets_nobody_record_its_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, authority: Authority
) -> None:
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    context = trusting(str(authority.file))
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert context.keylog_filename is None


# --- the system's authorities


def of_the_system(monkeypatch: pytest.MonkeyPatch, file: Path, folder: Path) -> None:
    """What OpenSSL was built with; what the environment says stands beside it and is not obeyed."""
    paths = ssl.DefaultVerifyPaths("of-the-environment", "of-the-environment", "", str(file), "", str(folder))
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: paths)


@pytest.mark.parametrize("with_file", [True, False])
@pytest.mark.parametrize("with_entries", [True, False])
def test_the_systems_authorities_are_trusted_or_certifis_where_there_are_none(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_file: bool, with_entries: bool
) -> None:
    file = authority.file if with_file else tmp_path / "absent"
    folder = authority.file.parent if with_entries else tmp_path / "absent"
    of_the_system(monkeypatch, file, folder)
    asked: list[tuple[str | None, ...]] = []
    monkeypatch.setattr(ssl.SSLContext, "load_verify_locations", lambda _, *places: asked.append(places))
    trusting(None)
    found = (str(file) if with_file else None, str(folder) if with_entries else None)
    assert asked == [found if any(found) else (certifi.where(), None)]


def test_an_empty_folder_of_the_system_holds_no_authorities(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    of_the_system(monkeypatch, tmp_path / "absent", tmp_path)
    assert trusting(None).get_ca_certs()


def test_a_server_that_the_system_trusts_is_trusted(
    authority: Authority, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_the_system(monkeypatch, authority.file, tmp_path / "absent")
    assert status(url, client_cert=authority.certificate()) == 200


def test_windows_authorities_are_those_of_its_two_stores(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = ssl.PEM_cert_to_DER_cert(authority.file.read_text())
    stores = {"CA": [(b"not one", "pkcs_7_asn", True)], "ROOT": [(certificate, "x509_asn", True)]}
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(ssl, "enum_certificates", stores.pop, raising=False)
    assert trusting(None).get_ca_certs(binary_form=True) == [certificate]
    assert stores == {}


def test_what_cannot_be_used_is_told_by_who_named_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = tmp_path / "nothing.pem"
    nothing.write_text("no certificate")
    of_the_system(monkeypatch, nothing, tmp_path / "absent")
    with pytest.raises(ConfigurationError, match="what this system trusts"):
        trusting(None)
    with pytest.raises(ConfigurationError, match=r"ca_file=.*nothing\.pem"):
        trusting(str(nothing))


@pytest.mark.parametrize(
    ("code", "why"),
    [(9, "not valid yet"), (10, "expired"), (18, "signed by itself"), (62, "another host"), (1, "code 1")],
)
def test_a_refused_certificate_is_told_by_what_is_wrong_with_it(code: int, why: str) -> None:
    error = ssl.SSLCertVerificationError()
    error.verify_code = code
    assert why in certificate_fault(error)
