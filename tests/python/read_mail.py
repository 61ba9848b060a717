"""read_mail.py FILE: prints a mail as Python's email package parses it, as JSON; every defect is an error."""
import email
import email.policy
import json
import sys

with open(sys.argv[1], "rb") as file:
    mail = email.message_from_binary_file(file, policy=email.policy.strict)
plain, html = mail.get_body(("plain",)), mail.get_body(("html",))


def content(part):
    """Base64 keeps the line ends of the wire."""
    return part.get_content().replace("\r\n", "\n")


print(json.dumps({
    "subject": mail["subject"],
    "from": [[a.display_name, a.addr_spec] for a in mail["from"].addresses],
    "to": [a.addr_spec for a in mail["to"].addresses],
    "date": mail["date"].datetime.isoformat(),
    "message_id": mail["message-id"],
    "type": mail.get_content_type(),
    "parts": [part.get_content_type() for part in mail.iter_parts()],
    "text": content(plain),
    "html": content(html),
    "defects": [str(defect) for part in mail.walk() for defect in part.defects],
}))
