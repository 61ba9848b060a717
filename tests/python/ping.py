"""ping.py SOCKET: checks that Redis answers the client from PyPI, and sets a key as a trace."""
import sys

import redis

client = redis.Redis(unix_socket_path=sys.argv[1])
client.set("from", "python")
print(client.ping())
