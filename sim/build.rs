//! The simulator needs a tokio whose every choice is drawn from the seed, and a panic in a task must end its run. Both
//! are behind a switch of the compiler, which RUSTFLAGS in the environment can lose without a word.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=CARGO_CFG_TOKIO_UNSTABLE");
    if std::env::var_os("CARGO_CFG_TOKIO_UNSTABLE").is_none() {
        println!(
            "cargo::error=the simulator needs `--cfg tokio_unstable`, which .cargo/config.toml sets unless RUSTFLAGS in \
             the environment overrides it: unset RUSTFLAGS, or add `--cfg tokio_unstable` to it"
        );
    }
}
