"""A Celery task that sends one letter by smtplib, as the documents of both show it; the connection is kept for each process.

Runs in the peers' own environment, this folder on its path: it knows nothing of the engine. PEER_BROKER and PEER_PORT say where. As a
program, `python -m celery_task COUNT`, it queues that many.
"""

from __future__ import annotations

import os
import smtplib
import sys

from celery import Celery

from benchmarks.letter import email_message, rows

_ACCOUNT = "m1"
app = Celery("peer", broker=os.environ["PEER_BROKER"])
app.conf.task_ignore_result = True
_clients: list[smtplib.SMTP] = []


@app.task
def send(row: dict[str, str]) -> None:
    if not _clients:
        _clients.append(smtplib.SMTP("127.0.0.1", int(os.environ["PEER_PORT"])))
    _clients[0].send_message(email_message(_ACCOUNT, row))


if __name__ == "__main__":
    from celery_task import send as task  # under its name, not under that of a program

    for person in rows(_ACCOUNT, int(sys.argv[1])):
        task.delay(person)
