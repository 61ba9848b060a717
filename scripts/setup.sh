#!/bin/sh
# setup.sh run|test|check|fuzz|guard: installs what this machine lacks for one purpose, and nothing
# else. It needs Debian or Ubuntu, and root or sudo. Elsewhere it says what to install by hand.
set -eu
cd "$(dirname "$0")/.."
PATH=${CARGO_HOME:-$HOME/.cargo}/bin:$PATH:/usr/sbin:/sbin
export PATH

say() { printf 'setup: %s\n' "$*" >&2; }
stop() { say "$*"; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }
at_least() { [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1)" = "$1" ]; } # at_least WANTED FOUND

packages=
want() { # want WHY PACKAGE...
    why=$1; shift
    say "missing: $* ($why)"
    packages="$packages $*"
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# Debian starts a service when its package is installed. This project needs Redis and Postfix only as
# programs: the daemon and the tests start their own, on their own sockets. So the installation must
# start no service, neither now nor at the next boot.
quiet_install='
set -eu
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
    printf "#!/bin/sh\nexit 101\n" >$policy
    trap "rm -f $policy" EXIT
    trap "exit 1" HUP INT TERM
    chmod 755 $policy
fi
case " $* " in *" postfix "*)
    echo "postfix postfix/main_mailer_type select No configuration" | debconf-set-selections ;;
esac
export DEBIAN_FRONTEND=noninteractive NEEDRESTART_MODE=l
apt-get -o DPkg::Lock::Timeout=120 install -qq -y --no-install-recommends "$@"
for service in redis-server postfix prometheus; do
    case " $* " in *" $service "*)
        if command -v systemctl >/dev/null; then systemctl disable --quiet $service
        else update-rc.d $service disable; fi >/dev/null 2>&1 || true ;;
    esac
done'

install_packages() {
    [ -n "$packages" ] || return 0
    byhand="sudo apt-get install$packages"
    have apt-get || stop "this is neither Debian nor Ubuntu: install the equivalents of these packages by hand, then run again:$packages"
    if [ "$(id -u)" != 0 ]; then
        have sudo || stop "you are not root and sudo is missing: ask an administrator to run this, then run again: apt-get install$packages"
        sudo -v || stop "sudo was refused: ask an administrator to run this, then run again: $byhand"
    fi
    say "installing with apt-get:$packages"
    as_root apt-get -o DPkg::Lock::Timeout=120 update -qq || say "apt-get update failed; trying with the present package lists"
    # The output of apt goes to a log, which is shown only after a failure.
    mkdir -p target
    # shellcheck disable=SC2086 # the list must be split into words
    if ! as_root sh -c "$quiet_install" sh $packages >target/setup.log 2>&1; then
        tail -n 20 target/setup.log >&2
        stop "apt-get could not install$packages: see above. Is the network reachable? By hand: $byhand"
    fi
}

redis_version() { redis-server --version | sed -n 's/.* v=\([0-9.]*\).*/\1/p'; }

need_for_running() {
    echo '#include <stdlib.h>' | cc -x c -fsyntax-only - 2>/dev/null ||
        want "a C compiler, for two C libraries of Rust crates" gcc libc6-dev
    [ -e /etc/ssl/certs/ca-certificates.crt ] || want "the root certificates for TLS" ca-certificates
    have redis-server || want "the store and the queue; no system service is started" redis-server
    cargo_is_new || have rustup || have curl || want "to download the installer of Rust" curl
}

check_redis() {
    found=$(redis_version)
    at_least 7 "$found" ||
        stop "redis-server is version $found, but 7 or newer is needed: see https://redis.io/docs/latest/operate/oss_and_stack/install/ for newer packages"
}

rust_wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
cargo_version() { cargo --version 2>/dev/null | cut -d ' ' -f 2; }
cargo_is_new() { found=$(cargo_version) && [ -n "$found" ] && at_least "$rust_wanted" "$found"; }

need_rust() {
    cargo_is_new && return 0
    if have rustup; then
        say "installing Rust's stable toolchain for this folder (cargo is ${found:-missing}, $rust_wanted or newer is needed)"
        rustup toolchain install stable --profile minimal --component clippy --component rustfmt --no-self-update &&
            rustup override set stable || stop "rustup failed: see above. Is the network reachable?"
    else
        say "installing Rust with rustup into ${CARGO_HOME:-$HOME/.cargo} (cargo is ${found:-missing}, $rust_wanted or newer is needed)"
        mkdir -p target
        curl --proto '=https' --tlsv1.2 -sSf --connect-timeout 20 --retry 2 -o target/rustup.sh https://sh.rustup.rs ||
            stop "https://sh.rustup.rs cannot be reached: install Rust $rust_wanted or newer by hand (https://rustup.rs), then run again"
        RUSTUP_INIT_SKIP_PATH_CHECK=yes sh target/rustup.sh -y -q --no-modify-path \
            --profile minimal --default-toolchain stable --component clippy --component rustfmt ||
            stop "the installer of rustup failed: see above"
        say "to use cargo in your own shell: . ${CARGO_HOME:-$HOME/.cargo}/env"
    fi
    cargo_is_new || stop "cargo is ${found:-missing}, but $rust_wanted or newer is needed; the first cargo on PATH is $(command -v cargo)"
}

# A python3 of pyenv or conda may be a shim that needs a chosen version, so the path is fixed.
python=/usr/bin/python3

need_for_testing() {
    have postfix || want "the mail server that tests send to; no system service is started" postfix
    { [ -x $python ] && $python -c 'import ensurepip'; } 2>/dev/null ||
        want "clients in another language, for the tests" python3 python3-venv
    { have promtool && have prometheus; } || want "Prometheus and promtool, for alerts and dashboards; no system service is started" prometheus
    have faketime || want "libfaketime, for tests that set the clock" faketime
    have systemd-analyze || want "systemd-analyze, which checks the unit" systemd
}

need_python_packages() {
    pins=tests/python/requirements.txt
    # After an upgrade of Python the old folder has no packages.
    { $python -V; cat $pins; } 2>&1 | cmp -s - target/python/installed.txt && return 0
    say "installing Python packages into target/python ($(grep -o '^[^ ;]*' $pins | tr '\n' ' ')for the tests)"
    rm -rf target/python
    { $python -m venv target/python &&
        target/python/bin/pip --disable-pip-version-check install -q --no-deps -r $pins; } ||
        stop "the packages in $pins could not be installed: see above. Is PyPI reachable?"
    { $python -V; cat $pins; } >target/python/installed.txt 2>&1
}

# Postfix starts only as root. The tests call sudo only for that, and cannot ask for a password.
need_root_for_postfix() {
    [ "$(id -u)" = 0 ] && return 0
    have sudo || stop "only root may start the private Postfix of the tests: run 'make test' as root, or install sudo"
    sudo -n true 2>/dev/null && return 0
    say "only root may start the private Postfix of the tests: sudo asks for your password now"
    sudo -v || stop "sudo was refused: run 'make test' as root"
}

need_for_guarding() {
    have postfix || want "smtp-sink, which takes the mail; no system service is started" postfix
    have valgrind || want "callgrind, which counts instructions" valgrind
    [ -x $python ] || want "the guard is a program in Python" python3
}

deny_version=0.20.2
need_for_checking() {
    cargo clippy --version >/dev/null 2>&1 && cargo fmt --version >/dev/null 2>&1 || {
        say "installing clippy and rustfmt (make check runs them)"
        rustup component add clippy rustfmt || stop "rustup failed: see above"
    }
    cargo deny --version >/dev/null 2>&1 || {
        say "building cargo-deny $deny_version, which checks licences and sources; this takes some minutes, once"
        cargo install --quiet --locked --version $deny_version cargo-deny || stop "cargo-deny could not be built: see above"
    }
}

# libFuzzer is compiled with its target. It needs sanitizers that only a nightly compiler has.
fuzz_version=0.13.2
need_for_fuzzing() {
    have rustup || stop "fuzzing needs a nightly compiler, which comes with rustup: https://rustup.rs"
    rustup run nightly rustc --version >/dev/null 2>&1 || {
        say "installing Rust's nightly toolchain (libFuzzer needs its sanitizers)"
        rustup toolchain install nightly --profile minimal --no-self-update || stop "rustup failed: see above"
    }
    cargo fuzz --version >/dev/null 2>&1 || {
        say "building cargo-fuzz $fuzz_version; this takes a minute, once"
        cargo install --quiet --locked --version $fuzz_version cargo-fuzz || stop "cargo-fuzz could not be built: see above"
    }
}

purpose=${1:-}
case $purpose in run | test | check | fuzz | guard) ;; *) stop "usage: scripts/setup.sh run|test|check|fuzz|guard" ;; esac
need_for_running
case $purpose in
    test | check) need_for_testing ;;
    guard) need_for_guarding ;;
esac
case $purpose in
    check | fuzz) have c++ || want "a C++ compiler, for libFuzzer" g++ ;;
esac
install_packages
check_redis
need_rust
case $purpose in test | check) need_python_packages; need_root_for_postfix ;; esac
case $purpose in
    check) need_for_checking ;;
    fuzz) need_for_fuzzing ;;
esac
