"""What is secret in the cases, and what each server answers where all is well."""

from __future__ import annotations

from typing import Any

CLIENT = "pos"
SECRET, VAULT_TOKEN, SECRET_ID, AWS_KEY, AWS_SESSION, IN_A_BODY = (
    f"not-a-real-secret-{name}"
    for name in ("of-the-client", "vault-token", "secret-id", "aws-key", "aws-session", "in-a-body")
)
GOOD = "not-a-real-token-that-is-good"
SECRETS = (SECRET, VAULT_TOKEN, SECRET_ID, AWS_KEY, AWS_SESSION, IN_A_BODY, GOOD)

TOKEN_PATH, METADATA_PATH = "/connect/token", "/.well-known/openid-configuration"
OAUTH_METADATA_PATH = "/.well-known/oauth-authorization-server"
VAULT_PATH, LOGIN_PATH = "/v1/kv/data/prod/pos", "/v1/auth/approle/login"


TOKEN_ANSWER = {"access_token": GOOD, "token_type": "Bearer", "expires_in": 3600}
LOGIN_ANSWER = {"auth": {"client_token": VAULT_TOKEN, "lease_duration": 3600, "renewable": True, "num_uses": 0}}
FIELDS = {"client_id": CLIENT, "client_secret": SECRET}
VAULT_ANSWER = {"data": {"data": FIELDS, "metadata": {"version": 1, "destroyed": False, "deletion_time": ""}}}
AWS_ANSWER = {
    "ARN": "arn:aws:secretsmanager:eu-west-1:123456789012:secret:prod/pos-AbCdEf",
    "Name": "prod/pos",
    "VersionId": "1" * 32,
    "SecretString": f'{{"client_id": "{CLIENT}", "client_secret": "{SECRET}"}}',
    "VersionStages": ["AWSCURRENT"],
}


def metadata_answer(origin: str, **members: Any) -> dict[str, Any]:
    return {"issuer": origin, "token_endpoint": f"{origin}{TOKEN_PATH}", **members}
