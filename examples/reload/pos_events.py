"""Asks for the newest orders, and reads its secret anew when AWS says that it was changed.

Needs: pip install 'secretsource[aws]'; POS_URL, POS_CREDENTIALS as aws://prod/pos, and POS_QUEUE, the URL of an SQS
       queue of this instance to which an EventBridge rule with the pattern events.json sends (CloudTrail must be on).
       An event comes a minute or so after the change; without it the program reads every five minutes.
       POS_AWS_ENDPOINT, if Secrets Manager and SQS are reached by an endpoint of your own
"""

import os
import signal
import threading

import boto3
import httpx

from secretsource import TokenAuth, TokenSource
from secretsource.backends.aws import AwsBackend

QUERY = {"query": "{ orders(first: 2) { id total } }"}

site, queue, endpoint = os.environ["POS_URL"], os.environ["POS_QUEUE"], os.environ.get("POS_AWS_ENDPOINT")
stores = {"aws": AwsBackend(endpoint_url=endpoint)}
pos = TokenSource(os.environ["POS_CREDENTIALS"], issuer=site, stores=stores, on_event=print)
over = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: over.set())


def listen() -> None:
    sqs = boto3.client("sqs", endpoint_url=endpoint)
    while not over.is_set():
        for message in sqs.receive_message(QueueUrl=queue, WaitTimeSeconds=1).get("Messages", []):
            pos.reload()  # whatever it says: a read more does no harm, and its text is nobody's business
            sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])


listener = threading.Thread(target=listen)
listener.start()
with httpx.Client(base_url=site, auth=TokenAuth(pos)) as client:
    print("ready", flush=True)
    while not over.wait(float(os.environ.get("POS_PAUSE", "5"))):
        orders = client.post("api/graphql", json=QUERY).raise_for_status().json()["data"]["orders"]
        print(len(orders), "orders", flush=True)
listener.join()
