"""Asks a site with a token whose client ID and secret are in AWS Secrets Manager.

Needs: pip install 'secretsource[aws]', the secret {"client_id": …, "client_secret": …}, and a role with reader.json
       (with watch_labels=True also DescribeSecret). Whoever changes the secret gets rotator.json instead; both name
       one secret by "-??????", AWS's own suffix, and need their last statement only with a KMS key of your own.
       POS_URL, POS_CREDENTIALS such as aws://prod/pos?region=eu-west-1; POS_AWS_ENDPOINT, if it is a VPC endpoint
"""

import os

import httpx

from secretsource import TokenAuth, TokenSource
from secretsource.backends.aws import AwsBackend

site = os.environ["POS_URL"]
aws = AwsBackend(endpoint_url=os.environ.get("POS_AWS_ENDPOINT"), connect_timeout=1.0)
pos = TokenSource(os.environ["POS_CREDENTIALS"], issuer=site, stores={"aws": aws})
with httpx.Client(base_url=site, auth=TokenAuth(pos, origins=site)) as client:
    print(client.post("api/graphql", json={"query": "{ orders(first: 2) { id total } }"}).raise_for_status().text)
