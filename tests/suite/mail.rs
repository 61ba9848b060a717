//! Mail out against foreign parts: Python's parser, a TLS server, Postfix.

mod messages;
