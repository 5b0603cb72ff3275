//! How much faster than the clock on the wall simulated time passes while little happens: each step of the simulation costs the
//! same, however long it is and whether or not anything happens in it.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use farshore_sim::folder::SimFolder;
use farshore_sim::history::History;
use farshore_sim::world::{self, Setup, script};
use std::time::Duration;

/// For how long, in simulated seconds, a reader and an owner are connected and leave each other alone.
const QUIET_SECONDS: u64 = 100;

/// A world in which nothing happens, in steps of `tick`.
fn quiet(tick: Duration) {
    let history = History::short();
    let folder = SimFolder::new(history.clone());
    folder.write("file", 10);
    let body = script(|stage| async move {
        tokio::time::sleep(Duration::from_secs(QUIET_SECONDS)).await;
        assert!(stage.kernel.node().view(|view| view.peers().all(|peer| peer.listed)), "the reader has met the owner");
        stage.kernel.node().clone().shut_down().await;
    });
    let setup = Setup { tick, ..Setup::new(1) };
    world::run(setup, &folder, &history, vec![body]).unwrap_or_else(|error| panic!("{error}"));
}

/// What is shown as elements are simulated seconds.
fn simulated_seconds(bench: &mut Criterion) {
    let mut group = bench.benchmark_group("simulated seconds");
    group.sample_size(10);
    group.throughput(Throughput::Elements(QUIET_SECONDS));
    for tick_ms in [1, 5] {
        let tick = Duration::from_millis(tick_ms);
        group.bench_with_input(BenchmarkId::new("quiet, steps of ms", tick_ms), &tick, |bench, tick| {
            bench.iter(|| quiet(*tick));
        });
    }
    group.finish();
}

criterion_group!(benches, simulated_seconds);
criterion_main!(benches);
