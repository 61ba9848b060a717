"""auth_smtp.py FOLDER: an SMTP server that takes mail over STARTTLS and after AUTH only.

FOLDER holds tls.pem (key and certificate) and password (the user is "versand"). Prints "ready PORT", then
"auth USER yes|no" for every login and "mail RECIPIENT" for every message it took. Ends with its standard input.
"""
import logging
import socket
import ssl
import sys

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult

folder = sys.argv[1]
# it warns of its own attributes
logging.disable(logging.WARNING)


def say(*words):
    print(*words, flush=True)


class Taker:
    async def handle_DATA(self, server, session, envelope):
        say("mail", *envelope.rcpt_tos)
        return "250 2.0.0 taken"


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
    Taker(), hostname="127.0.0.1", port=listener.getsockname()[1], server_hostname="auth.test", tls_context=context, require_starttls=True,
    auth_required=True, auth_require_tls=True, authenticator=authenticate,
    ready_timeout=60)
controller.start()
say("ready", controller.port)
sys.stdin.read()
controller.stop()
