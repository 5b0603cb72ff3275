#[test]
fn zz() {
    let n = std::env::var("SC").unwrap();
    let s = farshore_sim::scenarios::find(&n).unwrap();
    let h = farshore_sim::history::History::to_file(std::path::Path::new("/tmp/trace.txt")).unwrap();
    let r = farshore_sim::failure::attempt(
        std::env::var("SEED").map_or(1, |s| s.parse().unwrap()),
        Some(s.name),
        &h,
        &s.run,
    );
    h.finish().unwrap();
    if let Err(f) = r {
        panic!("{f}")
    }
}
