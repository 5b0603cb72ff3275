//! What the model and the fuzzer found, each under a name that says what it showed.

use farshore_engine::testing::{Op, play};

/// The kernel kept the link count of a file that had lost its name.
#[test]
fn a_removed_file_that_is_known_has_one_link_less() {
    let ops = [Op::Create(0, 0, 0), Op::Run(156), Op::Remove(0), Op::Create(0, 0, 0), Op::Lookup(0, 0)];
    let _world = play(0, &ops, false);
}
