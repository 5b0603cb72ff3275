//! What the bitmap of a file of a million chunks costs: half a tebibyte.

use criterion::{Criterion, criterion_group, criterion_main};
use farshore_engine::ChunkBitmap;
use farshore_engine::chunk::CHUNK_SIZE;
use std::hint::black_box;

const CHUNKS: u64 = 1_000_000;

fn empty() -> ChunkBitmap {
    let Some(bitmap) = ChunkBitmap::new(CHUNKS * CHUNK_SIZE) else { panic!("a million chunks are allowed") };
    bitmap
}

/// Everything but the last chunk is present: the longest way to what is missing.
fn contiguous() -> ChunkBitmap {
    let mut bitmap = empty();
    bitmap.set_range(0, (CHUNKS - 1) * CHUNK_SIZE);
    bitmap
}

/// Every other chunk is present.
fn shredded() -> ChunkBitmap {
    let mut bitmap = empty();
    (0..CHUNKS).step_by(2).for_each(|chunk| bitmap.set(chunk));
    bitmap
}

fn bitmaps(bench: &mut Criterion) {
    for (name, bitmap) in [("contiguous", contiguous()), ("shredded", shredded())] {
        let mut group = bench.benchmark_group(name);
        group.bench_function("has_range of one read", |bench| {
            let mut chunk = 0;
            bench.iter(|| {
                chunk = (chunk + 7_919) % CHUNKS;
                black_box(bitmap.has_range(black_box(chunk * CHUNK_SIZE), 128 * 1024))
            });
        });
        group.bench_function("has_range of the whole file", |bench| {
            bench.iter(|| black_box(bitmap.has_range(0, black_box(CHUNKS * CHUNK_SIZE))));
        });
        group.bench_function("next_missing from the beginning", |bench| {
            bench.iter(|| black_box(bitmap.next_missing(black_box(0))));
        });
        group.bench_function("set", |bench| {
            let mut bitmap = bitmap.clone();
            let mut chunk = 0;
            bench.iter(|| {
                chunk = (chunk + 7_919) % CHUNKS;
                bitmap.set(black_box(chunk));
            });
        });
        group.bench_function("all missing chunks, one by one", |bench| {
            bench.iter(|| {
                let mut from = 0;
                let mut count = 0_u64;
                while let Some(chunk) = bitmap.next_missing(from) {
                    from = chunk + 1;
                    count += 1;
                }
                black_box(count)
            });
        });
        group.finish();
    }
}

criterion_group!(benches, bitmaps);
criterion_main!(benches);
