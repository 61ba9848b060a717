"""tls.py PORT TLS_PORT CA_FILE: connects with STARTTLS and implicit TLS, verifies the certificate, prints the replies to NOOP."""
import smtplib
import ssl
import sys

port, tls_port, ca_file = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
context = ssl.create_default_context(cafile=ca_file)
with smtplib.SMTP("localhost", port, timeout=10) as upgraded:
    upgraded.starttls(context=context)
    first = upgraded.noop()[0]
with smtplib.SMTP_SSL("localhost", tls_port, timeout=10, context=context) as wrapped:
    second = wrapped.noop()[0]
print(first, second)
