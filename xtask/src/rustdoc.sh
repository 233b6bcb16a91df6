#!/bin/sh
# rustdoc with its unstable options. Only rustdoc sees the variable: build scripts would compile all crates otherwise.
RUSTC_BOOTSTRAP=1 exec rustdoc "$@"
