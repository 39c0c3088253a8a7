"""Authlib's authorization server on flask, in a thread, on a free port of loopback."""

from __future__ import annotations

import secrets
import threading
import warnings
from typing import Any, Self
from urllib.parse import urlsplit

from flask import Flask, Response, jsonify, request
from werkzeug.serving import WSGIRequestHandler, make_server

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # Authlib's own, about its further versions
    from authlib.integrations.flask_oauth2 import AuthorizationServer  # type: ignore[import-untyped]
    from authlib.oauth2.rfc6749 import ClientMixin, grants  # type: ignore[import-untyped]
    from authlib.oauth2.rfc6750 import BearerTokenGenerator  # type: ignore[import-untyped]
    from authlib.oauth2.rfc7592 import ClientConfigurationEndpoint  # type: ignore[import-untyped]
    from authlib.oauth2.rfc7662 import IntrospectionEndpoint  # type: ignore[import-untyped]

_METHODS = ["client_secret_basic", "client_secret_post"]


class AuthlibServer:
    """One client, whose secret and lifetime (whole seconds) may be changed while it runs. A context manager.

    Its registration is read and updated at `registration_uri` with `registration_token` (RFC 7592). As Authlib leaves
    to whoever runs it: an update changes the secret if `rotates`, and the token is exchanged at each call for it if
    `rotates_token`; the secret ends at `expires`, in seconds since 1970.
    """

    def __init__(self, *, client_id: str, client_secret: str, scopes: tuple[str, ...], lifetime: int = 3600) -> None:
        self.client_id = client_id
        self.client_secret = client_secret
        self.scopes = scopes
        self.lifetime = lifetime
        self.registration_token = "not-a-real-secret-registration-0"
        self.rotates = True
        self.rotates_token = False
        self.expires = 0
        self.client_metadata: dict[str, Any] = {
            "client_name": "point of sale",
            "grant_types": ["client_credentials"],
            "scope": " ".join(scopes),
            "token_endpoint_auth_method": "client_secret_basic",
        }
        self._tokens: set[str] = set()
        self._server = make_server("127.0.0.1", 0, self._app(), threaded=True, request_handler=_Silent)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    @property
    def issuer(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def token_url(self) -> str:
        return f"{self.issuer}/oauth/token"

    @property
    def registration_uri(self) -> str:
        return f"{self.issuer}/oauth/register/{self.client_id}"

    def set_secret(self, client_secret: str) -> None:
        self.client_secret = client_secret

    def set_lifetime(self, seconds: int) -> None:
        self.lifetime = seconds

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join(10)
        self._server.server_close()

    def _app(self) -> Flask:
        app = Flask("authlib-server")
        server = AuthorizationServer(app, self._client, self._save)
        server.register_grant(_ClientCredentials)
        server.register_endpoint(type("Introspection", (_Introspection,), {"tokens": self._tokens}))
        server.register_endpoint(type("Configuration", (_Configuration,), {"ours": self}))
        server.register_token_generator(
            "default",
            BearerTokenGenerator(lambda **_: secrets.token_urlsafe(32), expires_generator=lambda *_: self.lifetime),
        )
        app.add_url_rule("/oauth/token", view_func=server.create_token_response, methods=["POST"], endpoint="token")
        app.add_url_rule(
            "/oauth/introspect",
            view_func=lambda: server.create_endpoint_response("introspection"),
            methods=["POST"],
            endpoint="introspect",
        )
        app.add_url_rule(
            "/oauth/register/<client_id>",
            view_func=lambda client_id: server.create_endpoint_response("client_configuration"),
            methods=["GET", "PUT", "DELETE"],
            endpoint="register",
        )
        for name in ("oauth-authorization-server", "openid-configuration"):
            app.add_url_rule(f"/.well-known/{name}", view_func=self._metadata, endpoint=name)
        return app

    def _client(self, client_id: str) -> _Client | None:
        return _Client(self) if client_id == self.client_id else None

    def _save(self, token: dict[str, Any], _: Any) -> None:
        self._tokens.add(token["access_token"])

    def _metadata(self) -> Response:
        return jsonify(
            issuer=request.url_root.rstrip("/"),
            token_endpoint=f"{request.url_root}oauth/token",
            introspection_endpoint=f"{request.url_root}oauth/introspect",
            token_endpoint_auth_methods_supported=_METHODS,
            grant_types_supported=["client_credentials"],
            response_types_supported=[],
        )


class _ClientCredentials(grants.ClientCredentialsGrant):  # type: ignore[misc]
    TOKEN_ENDPOINT_AUTH_METHODS = _METHODS


class _Introspection(IntrospectionEndpoint):  # type: ignore[misc]
    CLIENT_AUTH_METHODS = _METHODS
    tokens: set[str]

    def query_token(self, token_string: str, token_type_hint: str | None) -> str | None:
        return token_string if token_string in self.tokens else None

    def check_permission(self, token: str, client: Any, request: Any) -> bool:
        return True

    def introspect_token(self, token: str) -> dict[str, Any]:
        return {"active": True}


class _Configuration(ClientConfigurationEndpoint):  # type: ignore[misc]
    ours: AuthlibServer

    def authenticate_token(self, request: Any) -> _RegistrationToken | None:
        given = request.headers.get("Authorization", "").removeprefix("Bearer ")
        return _RegistrationToken() if secrets.compare_digest(given, self.ours.registration_token) else None

    def authenticate_client(self, request: Any) -> _Client | None:
        name = urlsplit(request.uri).path.rpartition("/")[2]
        return _Client(self.ours) if name == self.ours.client_id else None

    def revoke_access_token(self, token: Any, request: Any) -> None:
        self.ours.registration_token = secrets.token_urlsafe(32)

    def check_permission(self, client: _Client, request: Any) -> bool:
        return True

    def update_client(self, client: _Client, client_metadata: dict[str, Any], request: Any) -> _Client:
        self.ours.client_metadata = client_metadata
        if self.ours.rotates:
            self.ours.client_secret = f"not-a-real-secret-{secrets.token_hex(8)}"
        return client

    def generate_client_registration_info(self, client: _Client, request: Any) -> dict[str, str]:
        if self.ours.rotates_token:
            self.ours.registration_token = f"not-a-real-secret-registration-{secrets.token_hex(8)}"
        return {
            "registration_client_uri": self.ours.registration_uri,
            "registration_access_token": self.ours.registration_token,
        }

    def get_server_metadata(self) -> dict[str, Any]:
        return {}


class _RegistrationToken:
    def check_client(self, client: _Client) -> bool:
        return True


class _Client(ClientMixin):  # type: ignore[misc]
    def __init__(self, server: AuthlibServer) -> None:
        self._server = server

    @property
    def client_info(self) -> dict[str, Any]:
        return {
            "client_id": self._server.client_id,
            "client_secret": self._server.client_secret,
            "client_id_issued_at": 1,
            "client_secret_expires_at": self._server.expires,
        }

    @property
    def client_metadata(self) -> dict[str, Any]:
        return self._server.client_metadata

    def get_client_id(self) -> str:
        return self._server.client_id

    def check_client_secret(self, client_secret: str) -> bool:
        return secrets.compare_digest(self._server.client_secret.encode(), client_secret.encode())

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        return method in _METHODS

    def check_grant_type(self, grant_type: str) -> bool:
        return grant_type == "client_credentials"

    def get_allowed_scope(self, scope: str | None) -> str:
        return " ".join(name for name in (scope or "").split() if name in self._server.scopes)


class _Silent(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: Any) -> None:
        """Nothing on standard error."""
