"""Asks for the newest orders again and again, and is told when its secret has changed.

Needs: pip install secretsource watchfiles; POS_URL, and POS_CREDENTIALS as file:///run/pos/oauth.json

Nobody has to be told: a program reads its file before each token request, and Vault or AWS every five minutes. To be
told makes a change known at once: by a signal (kill -HUP, the `exec` of a Vault Agent's template, see agent.hcl), or by
the directory of the file. That is watched, not the file: a rename and the kubelet's exchange of links end a watch of
the file itself. To be told in vain costs one read of the store.
"""

import os
import signal
import threading
from pathlib import Path

import httpx
from watchfiles import watch

from secretsource import TokenAuth, TokenSource

QUERY = {"query": "{ orders(first: 2) { id total } }"}

site, credentials = os.environ["POS_URL"], os.environ["POS_CREDENTIALS"]
pos = TokenSource(credentials, issuer=site, on_event=print)
over = threading.Event()

signal.signal(signal.SIGHUP, lambda *_: pos.reload())
signal.signal(signal.SIGTERM, lambda *_: over.set())


def watch_directory(folder: Path) -> None:
    for _ in watch(folder, recursive=False, stop_event=over):
        pos.reload()


watcher = threading.Thread(target=watch_directory, args=(Path(credentials.removeprefix("file://")).parent,))
watcher.start()
with httpx.Client(base_url=site, auth=TokenAuth(pos)) as client:
    print("ready", flush=True)
    while not over.wait(float(os.environ.get("POS_PAUSE", "5"))):
        orders = client.post("api/graphql", json=QUERY).raise_for_status().json()["data"]["orders"]
        print(len(orders), "orders", flush=True)
watcher.join()
