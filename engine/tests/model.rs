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

/// Names that come, go and move while a listing is told, a few entries at a time.
fn moving_names() -> impl Strategy<Value = Vec<Op>> {
    let index = any::<u8>;
    let op = prop_oneof![
        // 50 or 300 milliseconds: less than a listing takes in such a world.
        3 => (4..6_u8).prop_map(Op::Run),
        4 => (index(), index(), index()).prop_map(|(entry, dir, name)| Op::Rename(entry, dir, name)),
        1 => (index(), index()).prop_map(|(dir, name)| Op::Create(dir, name, 1)),
        1 => (index(), index()).prop_map(|(dir, name)| Op::MakeDir(dir, name)),
        1 => index().prop_map(Op::Remove),
        1 => index().prop_map(Op::Unshare),
        1 => index().prop_map(Op::ShareAgain),
        1 => index().prop_map(Op::EditSameSize),
        1 => (index(), any::<bool>()).prop_map(|(who, clean)| Op::RestartFollower(who, clean)),
    ];
    proptest::collection::vec(op, 1..16).prop_map(|mut ops| {
        // A new life of the owner is listed anew, as soon as its followers are back.
        ops.splice(0..0, [Op::RestartOwner, Op::Run(5), Op::NetworkChanged(0), Op::NetworkChanged(1)]);
        ops
    })
}

fn cases(usual: u32) -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(usual);
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases(80))]

    #[test]
    fn whatever_happens_all_is_well_in_the_end(seed in any::<u16>(), ops in ops()) {
        let _world = play(u64::from(seed), &ops, false);
    }
}

proptest! {
    #![proptest_config(cases(80))]

    /// Worlds whose numbers are multiples of 24 tell listings slowly, and go on to the end.
    #[test]
    fn what_moves_while_it_is_listed_is_listed_right(seed in any::<u8>(), ops in moving_names()) {
        let _world = play(24 * u64::from(seed), &ops, false);
    }
}
