"""auth_smtp.py FOLDER: an SMTP server that accepts mail only over STARTTLS and after AUTH.

FOLDER holds tls.pem (key and certificate) and password (the user is "versand"). Prints "ready PORT", then
"auth USER yes|no" for every login and "mail RECIPIENT" for every accepted message. Ends when its
standard input ends.
"""
import logging
import socket
import ssl
import sys

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult

folder = sys.argv[1]
# aiosmtpd warns about attributes of its own
logging.disable(logging.WARNING)


def say(*words):
    print(*words, flush=True)


class MailHandler:
    async def handle_DATA(self, server, session, envelope):
        say("mail", *envelope.rcpt_tos)
        return "250 2.0.0 accepted"


def authenticate(server, session, envelope, mechanism, login):
    with open(f"{folder}/password", encoding="ascii") as file:
        good = login.login == b"versand" and login.password == file.readline().strip().encode()
    say("auth", login.login.decode(), "yes" if good else "no")
    return AuthResult(success=good, handled=False)


context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(f"{folder}/tls.pem")
listener = socket.create_server(("127.0.0.1", 0))


class OnListener(Controller):
    def _create_server(self):
        return self.loop.create_server(self._factory_invoker, sock=listener)


controller = OnListener(
    MailHandler(), hostname="127.0.0.1", port=listener.getsockname()[1], server_hostname="auth.test", tls_context=context, require_starttls=True,
    auth_required=True, auth_require_tls=True, authenticator=authenticate,
    ready_timeout=60)
controller.start()
say("ready", controller.port)
sys.stdin.read()
controller.stop()
