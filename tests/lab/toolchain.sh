# Sourced. Makes cargo work where the toolchain that rust-toolchain.toml names is neither installed nor to be had:
# then the default toolchain is taken, if it is new enough.

if ! command -v cargo >/dev/null; then
    echo "toolchain: there is no cargo here; install Rust 1.95 or later from https://rustup.rs" >&2
    exit 1
fi
if ! cargo --version >/dev/null 2>&1; then
    # `rustup default` prints "NAME (default)".
    RUSTUP_TOOLCHAIN=$(rustup default 2>/dev/null | awk '{ print $1 }')
    export RUSTUP_TOOLCHAIN
    version=$(rustc --version 2>/dev/null | awk '{ print $2 }')
    if [ "$(printf '1.95.0\n%s\n' "${version%%-*}" | sort -V | head -n 1)" != 1.95.0 ]; then
        echo "toolchain: Rust 1.95 cannot be fetched and the default toolchain is \`${version:-missing}\`" >&2
        exit 1
    fi
    echo "toolchain: the named toolchain is not to be had, using $RUSTUP_TOOLCHAIN" >&2
fi
