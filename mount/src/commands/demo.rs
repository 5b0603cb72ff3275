//! `farshore demo`: a tour on one machine, with two devices that have nothing in common but a ticket.
//!
//! Every step says what it does and what came of it, and the tour fails if it came out wrong. With a sample, both devices
//! change what is shared; somebody's own folder is only looked at.

use super::link_cutter::LinkCutter;
use super::{Failure, interruptible, stop_signal};
use crate::circle::Circle;
use crate::folder::WhileWritten;
use crate::fuse::{MountOptions, Mounted};
use crate::joining::{Absence, Joined, Membership, join, join_with_folder};
use crate::kernel_host::KernelHost;
use crate::live;
use crate::net::tls::TlsTransport;
use crate::node::Node;
use crate::own_folder::{OwnFolder, Writers};
use crate::sharing::{ShareOptions, Sharing, Unshared, fresh_config};
use crate::state::State;
use crate::store::{DiskStore, PRIVATE, Store};
use crate::ticket::Ticket;
use clap::Args;
use farshore_engine::Link;
use farshore_engine::chunk::CHUNK_SIZE;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use xxhash_rust::xxh3::Xxh3;

/// The size of the file in the sample that the tour writes, in bytes.
const SAMPLE_BYTES: u64 = 96 * 1024 * 1024;

/// How much of it is written at once, in bytes.
const PIECE_BYTES: u64 = 1024 * 1024;

/// The link is cut for this long.
const CUT_FOR: Duration = Duration::from_secs(1);

/// How long a step may take that waits for something to happen.
const STEP_LIMIT: Duration = Duration::from_secs(30);

/// Says what happens. If nobody listens any more the tour goes on to its end: somebody has to take down what it set up.
macro_rules! tell {
    ($($text:tt)*) => {{
        let _ = writeln!(io::stdout(), $($text)*);
    }};
}

#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    /// The folder to share [default: a sample that is written for the tour]
    folder: Option<PathBuf>,
    /// Leave it mounted to play with, until Ctrl-C
    #[arg(long)]
    stay: bool,
}

pub(super) async fn run(args: DemoArgs) -> Result<(), Failure> {
    let mut stop = pin!(stop_signal());
    // Signals are listened for before there is anything that could be left behind.
    let scratch = async { Ok(tempfile::Builder::new().prefix("farshore-demo-").tempdir()?) };
    let scratch = interruptible(stop.as_mut(), scratch).await?;
    let folder = match &args.folder {
        Some(folder) => folder.clone(),
        None => interruptible(stop.as_mut(), write_sample(scratch.path())).await?,
    };
    let is_sample = args.folder.is_none();
    let mut stage = interruptible(stop.as_mut(), set_up(folder, scratch.path(), is_sample)).await?;
    // Not in the middle of mounting: what is half mounted cannot be taken down.
    let mut result = mount(&mut stage).await;
    if result.is_ok() {
        result = interruptible(stop.as_mut(), tour(&stage)).await;
    }
    if result.is_ok() && args.stay {
        tell!("   mounted on {}; stop with Ctrl-C", stage.mountpoint.display());
        stop.await?;
    }
    take_down(stage).await?;
    result
}

/// What the tour has set up; taken down in the order of the fields.
struct Stage {
    mounted: Option<Mounted>,
    reader: Arc<Node>,
    /// Where the reader has plain files of what is shared, and changes them.
    copy: Option<OwnFolder>,
    sharing: Sharing,
    link: LinkCutter,
    mountpoint: PathBuf,
    folder: PathBuf,
    store_dir: PathBuf,
}

async fn tour(stage: &Stage) -> Result<(), Failure> {
    walk(stage).await?;
    read_on_demand(stage).await?;
    cut_in_mid_read(stage).await?;
    // Nobody's own folder is written to.
    if stage.copy.is_some() {
        notice_changes(stage).await?;
        make_changes(stage).await?;
    }
    tell!("done: everything that was read is what was shared");
    Ok(())
}

async fn write_sample(scratch: &Path) -> Result<PathBuf, Failure> {
    let folder = scratch.join("sample");
    fs::create_dir_all(folder.join("letters"))?;
    fs::write(folder.join("hello.txt"), "Hello from the other machine.\n")?;
    for letter in 'a'..='j' {
        fs::write(folder.join("letters").join(format!("{letter}.txt")), letter.to_string().repeat(1000))?;
    }
    std::os::unix::fs::symlink("hello.txt", folder.join("a link"))?;
    // Bytes that no compression and no run of zeros could stand in for.
    let mut file = io::BufWriter::new(File::create(folder.join("large.bin"))?);
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    for _ in 0..SAMPLE_BYTES / PIECE_BYTES {
        for _ in 0..PIECE_BYTES / 8 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            file.write_all(&state.to_le_bytes())?;
        }
        // A chance to be interrupted.
        tokio::task::yield_now().await;
    }
    file.flush()?;
    Ok(folder)
}

async fn set_up(folder: PathBuf, scratch: &Path, is_sample: bool) -> Result<Stage, Failure> {
    let device = |name: &str| State::open(Some(scratch.join(name)));
    let (owner, reader) = (device("owner")?, device("reader")?);
    let options = ShareOptions {
        folder: folder.clone(),
        listen: "127.0.0.1:0".to_owned(),
        advertise: Vec::new(),
        new_ticket: false,
        while_written: WhileWritten::default(),
        writable: is_sample,
    };
    let sharing = Sharing::start(owner, options).await?;
    tell!("1. one device shares {}", folder.display());
    let address = sharing.address().parse().map_err(Failure::failed)?;
    let link = LinkCutter::start(address).await?;
    // The same ticket, but by a way that can be cut.
    let given = sharing.ticket();
    let by_link = vec![link.address().to_string()];
    let ticket = Ticket::new(given.share(), given.owner(), *given.secret(), by_link)?;
    tell!("   its ticket: {}", ticket.encode());

    let store_dir = scratch.join("store");
    let store: Arc<dyn Store> = Arc::new(DiskStore::open(&store_dir).map_err(Failure::failed)?);
    let identity = reader.identity()?;
    let own = identity.id();
    let config = fresh_config(&own);
    let transport = Arc::new(TlsTransport::new(identity));
    let (joined, copy) = match is_sample {
        true => {
            let copy = OwnFolder::open(&store_dir, Writers::Everybody, WhileWritten::default(), Unshared::default());
            let mut copy = copy.map_err(Failure::failed)?;
            let circle = Circle::new(reader, own, ticket.owner(), ticket.share());
            let membership = Membership { folder: &mut copy, absence: Absence::IsAnError, circle, listener: None };
            (join_with_folder(&ticket, transport, store, config, membership).await?, Some(copy))
        }
        false => (join(&ticket, transport, store, config, Absence::IsAnError).await?, None),
    };
    let Joined { node: reader, bridged: _ } = joined;
    let mountpoint = scratch.join("mount");
    fs::create_dir(&mountpoint)?;
    Ok(Stage { mounted: None, reader, copy, sharing, link, mountpoint, folder, store_dir })
}

async fn mount(stage: &mut Stage) -> Result<(), Failure> {
    let (at, options) =
        (stage.mountpoint.clone(), MountOptions { read_only: stage.copy.is_none(), ..MountOptions::default() });
    let mounted = match stage.copy.as_ref().map(OwnFolder::live).transpose().map_err(Failure::failed)? {
        Some(copy) => tokio::task::spawn_blocking(move || live::mount(copy, &at, options)),
        None => {
            let host = Arc::new(KernelHost::new(stage.reader.clone(), stage.store_dir.clone()));
            tokio::task::spawn_blocking(move || Mounted::mount(host, &at, options))
        }
    };
    stage.mounted = Some(mounted.await.map_err(Failure::failed)??);
    tell!("2. another device joins with the ticket and mounts it on {}", stage.mountpoint.display());
    Ok(())
}

async fn take_down(mut stage: Stage) -> Result<(), Failure> {
    if let Some(mounted) = stage.mounted.take() {
        tokio::task::spawn_blocking(move || mounted.unmount()).await.map_err(Failure::failed)??;
    }
    stage.reader.shut_down().await;
    if let Some(copy) = stage.copy.take() {
        copy.stop().await;
    }
    stage.sharing.stop().await;
    Ok(())
}

/// Names, sizes and times are there at once, and no content has moved.
async fn walk(stage: &Stage) -> Result<(), Failure> {
    let (here, there) = (stage.mountpoint.clone(), stage.folder.clone());
    let begun = Instant::now();
    let private = DiskStore::lies_in(&there).then_some(PRIVATE);
    let seen = blocking(move || Ok((count(&here, None)?, count(&there, private)?))).await?;
    let ((entries, bytes), there) = seen;
    if (entries, bytes) != there {
        return Err(Failure::failed(format!("the mount shows {entries} entries of {bytes} bytes, not {there:?}")));
    }
    let fetched = fetched(stage);
    tell!(
        "3. all {entries} entries, {bytes} bytes, are listed after {:?}; {fetched} bytes were fetched",
        begun.elapsed()
    );
    Ok(())
}

/// Entries below a folder that can be shared, and the bytes of its files. One in it may be `private`.
fn count(folder: &Path, private: Option<&str>) -> io::Result<(u64, u64)> {
    let (mut entries, mut bytes) = (0, 0);
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let meta = entry.metadata()?;
        if private.is_some_and(|name| entry.file_name() == name) {
            continue;
        }
        if meta.is_dir() {
            // What may not be looked into is not shared either.
            let (inner_entries, inner_bytes) = match count(&entry.path(), None) {
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => (0, 0),
                counted => counted?,
            };
            entries += 1 + inner_entries;
            bytes += inner_bytes;
        } else if meta.is_file() || meta.is_symlink() {
            entries += 1;
            bytes += if meta.is_file() { meta.len() } else { 0 };
        }
    }
    Ok((entries, bytes))
}

/// A few bytes in the middle of the largest file bring their chunk, and not the file.
async fn read_on_demand(stage: &Stage) -> Result<(), Failure> {
    let Some((path, size)) = largest(stage).await? else {
        tell!("4. there is no file to read");
        return Ok(());
    };
    let middle = size / 2;
    let (here, there) = (stage.mountpoint.join(&path), stage.folder.join(&path));
    let same = blocking(move || Ok(read_at(&here, middle)? == read_at(&there, middle)?)).await?;
    if !same {
        return Err(Failure::failed(format!("the middle of {} is wrong", path.display())));
    }
    tell!(
        "4. 4096 bytes from the middle of {} ({size} bytes) are right; at most {} bytes were fetched for them",
        path.display(),
        fetched(stage).max(CHUNK_SIZE.min(size)),
    );
    Ok(())
}

fn read_at(path: &Path, offset: u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(offset))?;
    let mut bytes = Vec::new();
    file.take(4096).read_to_end(&mut bytes)?;
    Ok(bytes)
}

async fn largest(stage: &Stage) -> Result<Option<(PathBuf, u64)>, Failure> {
    Ok(stage.reader.view(|view| {
        view.tree()
            .filter(|(_, record)| matches!(record.kind, farshore_engine::record::Kind::File { .. }))
            .map(|(path, record)| (record.size_bytes(), path))
            .max()
            .filter(|(size, _)| *size > 0)
            .map(|(size, path)| {
                use std::os::unix::ffi::OsStringExt;
                (std::ffi::OsString::from_vec(path.to_bytes()).into(), size)
            })
    }))
}

/// The link is cut while the largest file is being read. The reader waits, and goes on by itself.
async fn cut_in_mid_read(stage: &Stage) -> Result<(), Failure> {
    let Some((path, size)) = largest(stage).await? else { return Ok(()) };
    let read = Arc::new(AtomicU64::new(0));
    let (here, there) = (stage.mountpoint.join(&path), stage.folder.join(&path));
    let counted = read.clone();
    let begun = Instant::now();
    let reader = tokio::task::spawn_blocking(move || checksum(&here, &counted));
    let quarter = size / 4;
    let reached = async {
        while read.load(Ordering::Relaxed) < quarter {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let ahead = tokio::time::timeout(STEP_LIMIT, reached).await.is_ok();
    stage.link.cut();
    let cut_at = read.load(Ordering::Relaxed);
    tell!("5. the link is cut when {cut_at} of {size} bytes of {} were read", path.display());
    wait_for_link(stage, false).await?;
    tokio::time::sleep(CUT_FOR).await;
    tell!("   after {CUT_FOR:?} without a link {} bytes were read, and the reader waits", read.load(Ordering::Relaxed));
    stage.link.heal();
    stage.reader.network_changed();
    wait_for_link(stage, true).await?;
    let mounted = reader.await.map_err(Failure::failed)??;
    tell!("   the link is back, and the reader has gone on by itself: {size} bytes after {:?}", begun.elapsed());
    let shared = blocking(move || checksum(&there, &AtomicU64::new(0))).await?;
    if mounted != shared || !ahead {
        return Err(Failure::failed(format!("{} was read wrong: {mounted:016x}, not {shared:016x}", path.display())));
    }
    tell!("   its checksum here and there: {mounted:016x}");
    Ok(())
}

/// xxh3 of a whole file.
fn checksum(path: &Path, read: &AtomicU64) -> io::Result<u64> {
    let mut file = File::open(path)?;
    let mut hash = Xxh3::new();
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hash.digest()),
            count => {
                hash.update(&buffer[..count]);
                read.fetch_add(count as u64, Ordering::Relaxed);
            }
        }
    }
}

async fn wait_for_link(stage: &Stage, up: bool) -> Result<(), Failure> {
    let is_up = || stage.reader.view(|view| view.peers().all(|peer| matches!(peer.link, Link::Up(_)) == up));
    let reached = async {
        while !is_up() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let late = |_| Failure::failed(if up { "the link did not come back" } else { "the cut was not noticed" });
    tokio::time::timeout(STEP_LIMIT, reached).await.map_err(late)
}

/// What changes in the shared folder changes in the mount.
async fn notice_changes(stage: &Stage) -> Result<(), Failure> {
    let begun = Instant::now();
    fs::write(stage.folder.join("news.txt"), "fresh\n")?;
    shows(stage.mountpoint.join("news.txt"), "fresh\n").await?;
    tell!("6. a file written in the shared folder shows in the mount after {:?}", begun.elapsed());
    Ok(())
}

/// What is changed in the mount changes in the shared folder.
async fn make_changes(stage: &Stage) -> Result<(), Failure> {
    let begun = Instant::now();
    let here = stage.mountpoint.clone();
    blocking(move || {
        fs::create_dir(here.join("answers"))?;
        fs::write(here.join("answers/reply.txt"), "an answer\n")?;
        fs::rename(here.join("news.txt"), here.join("answers/news.txt"))
    })
    .await?;
    shows(stage.folder.join("answers/reply.txt"), "an answer\n").await?;
    shows(stage.folder.join("answers/news.txt"), "fresh\n").await?;
    tell!("7. what is written and renamed in the mount is so in the shared folder after {:?}", begun.elapsed());
    Ok(())
}

/// Waits until a file holds this text.
async fn shows(path: PathBuf, text: &'static str) -> Result<(), Failure> {
    let seen = async {
        loop {
            let path = path.clone();
            if blocking(move || Ok(fs::read_to_string(path).is_ok_and(|read| read == text))).await? {
                return Ok::<(), Failure>(());
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let late = |_| Failure::failed(format!("{} did not become what it is on the other side", path.display()));
    tokio::time::timeout(STEP_LIMIT, seen).await.map_err(late)?
}

fn fetched(stage: &Stage) -> u64 {
    stage.reader.view(|view| view.totals().fetched_bytes)
}

/// File operations on the mount wait for this very process: never on a thread that has to answer them.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> Result<T, Failure> {
    Ok(tokio::task::spawn_blocking(work).await.map_err(Failure::failed)??)
}
