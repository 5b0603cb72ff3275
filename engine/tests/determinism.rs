//! The same seed and the same operations give the same history, output by output, on every machine, for ever.

use farshore_engine::testing::{Op, World, play};
use xxhash_rust::xxh3::xxh3_64;

/// The hash of the history of [`ops`], written down. It changes when the engine decides something differently, or when
/// a name in its outputs changes: then look at what changed, and write down the new one if it was meant.
const GOLDEN: u64 = 0x1758_dc21_837f_7bb4;

/// Operations that follow from nothing but their number.
fn ops(seed: u64, count: u64) -> Vec<Op> {
    (0..count)
        .map(|index| {
            let word = xxh3_64(&(seed << 32 | index).to_le_bytes()).to_le_bytes();
            Op::decode([word[0], word[1], word[2], word[3]])
        })
        .collect()
}

fn history(world: &World) -> Vec<String> {
    let Some(history) = &world.history else { panic!("no history was kept") };
    history.iter().map(|(at, host, output)| format!("{at} {host} {output:?}")).collect()
}

#[test]
fn the_same_seed_and_operations_give_the_same_history() {
    for seed in 0..5 {
        let ops = ops(seed, 100);
        let (first, second) = (history(&play(seed, &ops, true)), history(&play(seed, &ops, true)));
        assert!(first.len() > 100, "seed {seed}: {} outputs", first.len());
        for (index, (one, other)) in first.iter().zip(&second).enumerate() {
            assert_eq!(one, other, "seed {seed}, output {index}");
        }
        assert_eq!(first.len(), second.len());
    }
}

#[test]
fn another_seed_gives_another_history() {
    let ops = ops(0, 100);
    assert_ne!(history(&play(0, &ops, true)), history(&play(1, &ops, true)));
}

#[test]
fn a_history_is_the_same_on_every_machine() {
    let hash = xxh3_64(history(&play(42, &ops(42, 150), true)).join("\n").as_bytes());
    assert_eq!(hash, GOLDEN, "the history of the golden run has changed; its hash is now {hash:#018x}");
}

/// A model test whose operations never get anywhere would find nothing.
#[test]
fn operations_at_random_get_everywhere() {
    let mut sum = farshore_engine::view::Totals::default();
    for seed in 100..120 {
        let world = play(seed, &ops(seed, 80), false);
        for host in &world.hosts {
            let totals = host.engine.view().totals();
            sum.read_hits += totals.read_hits;
            sum.read_misses += totals.read_misses;
            sum.failed_fetches += totals.failed_fetches;
            sum.store_failures += totals.store_failures;
            sum.failed_requests += totals.failed_requests;
        }
    }
    let least = [sum.read_hits, sum.read_misses, sum.failed_fetches, sum.store_failures, sum.failed_requests];
    assert!(least.iter().all(|count| *count >= 5), "{sum:?}");
}
