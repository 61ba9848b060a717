"""Celery and smtplib: a task per recipient, its result kept in Redis, a connection per worker process."""

import os
import smtplib
from email.message import EmailMessage

from celery import Celery

app = Celery("bench", broker=os.environ["BENCH_REDIS"], backend=os.environ["BENCH_REDIS"])
app.conf.update(worker_prefetch_multiplier=50, task_acks_late=True, broker_connection_retry_on_startup=True)
BODY = ("x" * 70 + "\r\n") * -(-int(os.environ["BENCH_SIZE"]) // 144)
connection = None


@app.task
def send(to, name):
    global connection
    if connection is None:
        connection = smtplib.SMTP("127.0.0.1", int(os.environ["BENCH_SMTP_PORT"]))
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "The Shop <news@shop.example>", to, f"{name}, autumn is here"
    message.set_content(f"Dear {name},\r\n{BODY}")
    message.add_alternative(f"<p>Dear {name},</p><p>{BODY}</p>", subtype="html")
    connection.send_message(message)
    return "sent"
