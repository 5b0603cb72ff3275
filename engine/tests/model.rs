//! Operations at random on an owner and two followers, with everything that can go wrong around them. Whatever
//! happens, the rules of the world hold; and when all is mended, everybody agrees and every byte can be read.
//!
//! `PROPTEST_CASES` sets how many lists of operations are tried. What fails shrinks to a short list; paste it into
//! `regressions.rs` under a name that says what it showed.

// What a test run is asked to do comes from its environment.
#![allow(clippy::disallowed_methods)]

use farshore_engine::testing::{Op, play};
use proptest::prelude::*;

fn ops() -> impl Strategy<Value = Vec<Op>> {
    proptest::collection::vec(any::<[u8; Op::BYTES]>().prop_map(Op::decode), 0..80)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(100),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn whatever_happens_all_is_well_in_the_end(seed in any::<u16>(), ops in ops()) {
        let _world = play(u64::from(seed), &ops, false);
    }
}
