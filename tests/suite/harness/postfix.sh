#!/bin/sh
# postfix.sh start BASE PORT TLS_PORT FAR_PORT PID UID | stop BASE: a private Postfix in BASE, for a test.
# Only root may run the script. Postfix ends by itself when the process PID is gone.
# UID owns the Maildirs, unless it is root.
set -eu
PATH=$PATH:/usr/sbin:/sbin
action=$1 base=$2

if [ "$action" = stop ]; then
    postfix -c "$base/etc" stop >/dev/null 2>&1 || true
    # the watch below ends, too: the folder that it looks at is gone
    rm -rf "$base"
    exit
fi

port=$3 tls_port=$4 far_port=$5 pid=$6 owner=$7
[ "$owner" != 0 ] || owner=$(id -u nobody)
chmod 755 "$base"
mkdir -p "$base/etc" "$base/queue" "$base/data" "$base/mail"
chown postfix "$base/data"
chown "$owner" "$base/mail"
chmod 600 "$base/tls.pem"
chown root "$base/tls.pem"

cat >"$base/etc/main.cf" <<END
compatibility_level = 3.6
queue_directory = $base/queue
data_directory = $base/data
maillog_file = $base/maillog
maillog_file_prefixes = $base
myhostname = mx.relay.test
mydestination =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_recipient_restrictions = check_recipient_access texthash:$base/etc/recipients, permit_mynetworks, reject
smtpd_client_connection_rate_limit = 0
smtpd_tls_security_level = may
smtpd_tls_chain_files = $base/tls.pem
smtpd_tls_session_cache_database =
alias_maps =
local_recipient_maps =
disable_dns_lookups = yes
smtp_dns_support_level = disabled
# nothing leaves this machine
transport_maps = texthash:$base/etc/transport
default_transport = error:5.4.4 no route in the test network
virtual_transport = virtual
virtual_mailbox_domains = bounces.test, inbox.test
virtual_mailbox_base = $base/mail
virtual_mailbox_maps = regexp:$base/etc/mailboxes
virtual_uid_maps = static:$owner
virtual_gid_maps = static:$(getent group nogroup | cut -d : -f 3)
virtual_minimum_uid = 100
# a fast clock
minimal_backoff_time = 1s
maximal_backoff_time = 2s
queue_run_delay = 1s
maximal_queue_lifetime = 10s
bounce_queue_lifetime = 10s
delay_warning_time = 3s
END
cat >"$base/etc/mailboxes" <<'END'
/^.*@bounces\.test$/ bounces/
/^alice(\+.*)?@inbox\.test$/ alice/
/^bob(\+.*)?@inbox\.test$/ bob/
END
cat >"$base/etc/recipients" <<'END'
rejectme@inbox.test   550 5.7.1 policy: go away
tempfail@inbox.test   450 4.2.0 greylisted, try later
END
# This server accepts mail to these domains, and the server on FAR_PORT refuses it. Then this server
# reports to the sender.
cat >"$base/etc/transport" <<END
refuses.test    smtp:[127.0.0.1]:$far_port
defers.test     smtp:[127.0.0.1]:$far_port
END
cat >"$base/etc/far" <<'END'
refuses.test    550 5.1.1 User unknown
defers.test     452 4.2.2 Mailbox full
END
cat >"$base/etc/master.cf" <<END
127.0.0.1:$port inet n - n - - smtpd
127.0.0.1:$tls_port inet n - n - - smtpd -o smtpd_tls_wrappermode=yes
127.0.0.1:$far_port inet n - n - - smtpd
  -o myhostname=mx.far.test
  -o smtpd_recipient_restrictions=check_recipient_access,texthash:$base/etc/far,reject
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
END

postfix -c "$base/etc" start
# A test that was killed cannot clean up.
(
    while kill -0 "$pid" && [ -d "$base/etc" ]; do sleep 1; done
    [ ! -d "$base/etc" ] || sh "$0" stop "$base"
) >/dev/null 2>&1 &
