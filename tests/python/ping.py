"""ping.py SOCKET: Redis answers the client from PyPI; leaves a key that says so."""
import sys

import redis

client = redis.Redis(unix_socket_path=sys.argv[1])
client.set("from", "python")
print(client.ping())
