# shellcheck shell=bash
# Functions for the scripts in this directory: messages, root, and packages. To be sourced.

say() { printf '\n── %s\n' "$*" >&2; }

# The prefix of commands that need root: empty for root, else sudo. Without either, they fail or are skipped.
SUDO=()
if ((EUID != 0)) && command -v sudo >/dev/null; then SUDO=(sudo); fi

# Installs those of the given packages that are missing, on Debian and its derivatives. Elsewhere it prints the list.
install() {
    local package missing=()
    if ! command -v apt-get >/dev/null; then
        say "not Debian or Ubuntu: if a tool is missing, install it yourself. Debian's packages: $*"
        return
    fi
    for package; do
        dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
    done
    ((${#missing[@]})) || return 0
    say "installing ${missing[*]}"
    if ((EUID != 0 && ${#SUDO[@]} == 0)); then
        echo "installing packages needs root or sudo: install them yourself, then try again" >&2
        return 1
    fi
    # Some packages ask questions. The defaults are fine: for example, only root may capture with Wireshark.
    "${SUDO[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq update
    "${SUDO[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get -qq install -y --no-install-recommends "${missing[@]}" </dev/null >/dev/null
}

need_rust() {
    # A shell that was started before rustup was installed does not have its directory in PATH.
    local env=${CARGO_HOME:-$HOME/.cargo}/env
    # shellcheck source=/dev/null
    [[ ! -f $env ]] || source "$env"
    command -v cargo >/dev/null && return
    echo "Rust is missing: install it with rustup or from your distribution (Cargo.toml has the oldest version)" >&2
    return 1
}

# What the build needs: a C compiler for zstd, libpcap, and libsodium.
# shellcheck disable=SC2034 # used by the scripts
BUILD_PACKAGES=(build-essential pkg-config libpcap-dev libsodium-dev)
