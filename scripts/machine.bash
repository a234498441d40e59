# For the scripts beside this: what a machine needs, and how they speak. To be sourced.

say() { printf '\n── %s\n' "$*" >&2; }

# What needs root goes through this: nothing for root, else sudo. Without either, what needs it fails, or is skipped.
SUDO=()
if ((EUID != 0)) && command -v sudo >/dev/null; then SUDO=(sudo); fi

# Installs those of the named packages that are missing, on Debian and its kin; elsewhere says what may be missing.
install() {
    local package missing=()
    if ! command -v apt-get >/dev/null; then
        say "this is no Debian or Ubuntu: if something is missing, it is one of: $*"
        return
    fi
    for package; do
        dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
    done
    ((${#missing[@]})) || return 0
    say "installing ${missing[*]}"
    if ((EUID != 0 && ${#SUDO[@]} == 0)); then
        echo "that takes root or sudo: install them yourself, then start again" >&2
        return 1
    fi
    # Without a question, also where a package has one (may everybody capture? Wireshark: no).
    "${SUDO[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq update
    "${SUDO[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get -qq install -y --no-install-recommends "${missing[@]}" </dev/null >/dev/null
}

need_rust() {
    # rustup's own place, where a shell that was not started anew has not got it in its PATH.
    [[ ! -f ${CARGO_HOME:-$HOME/.cargo}/env ]] || source "${CARGO_HOME:-$HOME/.cargo}/env"
    command -v cargo >/dev/null && return
    echo "Rust is missing: install it with rustup, or from your distribution (Cargo.toml says from which version on)" >&2
    return 1
}

# What the build takes: a C compiler for zstd, libpcap, and the system's libzmq (.cargo/config.toml says why).
BUILD_PACKAGES=(build-essential pkg-config libpcap-dev libzmq3-dev)
