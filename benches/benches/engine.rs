//! What one step of the engine costs, with a tree of 20,000 entries: the time that lies between a request and the
//! bytes, besides the bytes themselves.

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use farshore_benches::{Driver, FILE_CHUNKS, fetches, listing};
use farshore_engine::chunk::CHUNK_SIZE;
use farshore_engine::{Config, Ino, Input, Output, Request};

/// Without read-ahead: a miss is one chunk.
fn config() -> Config {
    Config { read_ahead_chunks: 0, ..Config::default() }
}

fn steps(bench: &mut Criterion) {
    let mut group = bench.benchmark_group("step");

    group.bench_function("lookup", |bench| {
        let mut driver = Driver::connected(config());
        let name = farshore_benches::dir_name(50);
        bench.iter(|| driver.ask(Request::Lookup { parent: Ino::ROOT, name: name.clone() }));
    });

    group.bench_function("read hit", |bench| {
        let mut driver = Driver::connected(config());
        let handle = driver.open(3, 7);
        driver.ask(Request::Read { handle, offset: 0, len: 4096 });
        driver.bring(driver.fetch());
        let mut offset = 0;
        bench.iter(|| {
            offset = (offset + 128 * 1024) % CHUNK_SIZE;
            driver.ask(Request::Read { handle, offset, len: 128 * 1024 });
            // What was stored is saved once a second.
            assert!(matches!(driver.out.last(), Some(Output::Reply(..))), "{:?}", driver.out);
        });
    });

    group.bench_function("read miss: asked for, arrived, stored", |bench| {
        let mut driver = Driver::connected(config());
        let (mut file, mut chunk) = (0, 0);
        let mut handle = driver.open(0, 0);
        bench.iter(|| {
            driver.ask(Request::Read { handle, offset: chunk * CHUNK_SIZE, len: 128 * 1024 });
            driver.bring(driver.fetch());
            chunk += 1;
            if chunk == FILE_CHUNKS {
                driver.ask(Request::Release { handle });
                (file, chunk) = (file + 1, 0);
                handle = driver.open(file / 200 % 100, file % 200);
            }
        });
    });

    group.bench_function("read that joins a fetch", |bench| {
        let start = || {
            let mut driver = Driver::connected(config());
            let handle = driver.open(3, 7);
            driver.ask(Request::Read { handle, offset: 0, len: 4096 });
            (driver, handle)
        };
        bench.iter_batched_ref(
            start,
            |(driver, handle)| {
                // A hundred readers of one chunk.
                for _ in 0..100 {
                    driver.ask(Request::Read { handle: *handle, offset: 4096, len: 4096 });
                }
            },
            BatchSize::LargeInput,
        );
    });

    group.bench_function("sequential read with read-ahead, and what it brings", |bench| {
        let mut driver = Driver::connected(Config::default());
        let (mut file, mut offset) = (0, 0);
        let mut handle = driver.open(0, 0);
        bench.iter(|| {
            driver.ask(Request::Read { handle, offset, len: 128 * 1024 });
            let asked: Vec<_> = fetches(&driver.out).collect();
            for fetch in asked {
                driver.bring(fetch);
            }
            offset += 128 * 1024;
            if offset == FILE_CHUNKS * CHUNK_SIZE {
                driver.ask(Request::Release { handle });
                (file, offset) = (file + 1, 0);
                handle = driver.open(file / 200 % 100, file % 200);
            }
        });
    });

    group.bench_function("tick with nothing due", |bench| {
        let mut driver = Driver::connected(config());
        bench.iter(|| driver.step(Input::Tick));
    });
    group.finish();
}

fn trees(bench: &mut Criterion) {
    let mut group = bench.benchmark_group("tree");
    group.sample_size(10);
    group.bench_function("20,000 entries are listed", |bench| {
        bench.iter_batched(listing, |_| Driver::connected(config()), BatchSize::LargeInput);
    });
    group.finish();
}

criterion_group!(benches, steps, trees);
criterion_main!(benches);
