//! The node: the only caller of the engine. It hands inputs in, carries outputs out, and decides nothing.
//!
//! One lock holds the engine and everything that must change together with it (`core::Core`). It is never held over a
//! wait, a disk access or a reply: what an output asks for is collected as `core::Todo` and done after the lock is
//! released. The same node runs under the FUSE mount, under `farshore get`, as the sharing side, and in the simulator.

mod answers;
mod away;
mod both_ways;
mod contents;
mod core;
mod effects;
mod introducing;
mod journaling;
mod remembering;
mod serving;

pub use self::core::{Recorder, Step};
pub use answers::{Answer, Bytes};
pub use introducing::{Introduced, Introducing};
pub use serving::Admission;

use self::both_ways::{Answering, Callable, CallingBack};
use self::core::{Core, Todo};
use self::journaling::Journaling;
pub use self::remembering::Remembered;
use self::remembering::Remembering;
use crate::folder::Folder;
use crate::net::transport::Transport;
use crate::ranked::{Rank, Ranked, RankedGuard};
use crate::store::Store;
use farshore_engine::path::RelPath;
use farshore_engine::{
    Command, Config, Engine, Errno, Ino, Input, Notice, Observation, Opened, PeerId, Reply, Request, SeenKind, Time,
};
use farshore_proto::Hello;
use futures_util::future::join_all;
use std::collections::BTreeMap;
use std::fs::File;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use tokio::runtime::Handle as Runtime;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

/// How long [`Node::shut_down`] waits for what is under way to end.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(3);

/// What a node is made of.
pub struct Parts {
    /// What the engine may do.
    pub config: Config,
    /// All chance that the engine will have.
    pub seed: u64,
    /// How connections are made.
    pub transport: Arc<dyn Transport>,
    /// Where fetched bytes are kept.
    pub store: Arc<dyn Store>,
    /// The folder that is shared, if one is. Peers that are followed and want to can call us for it, although we dial them.
    pub folder: Option<Arc<dyn Folder>>,
    /// Who may read it.
    pub admission: Arc<dyn Admission>,
    /// Where the peers to follow can be reached, in the order in which to try, and how to introduce ourselves.
    pub peers: BTreeMap<PeerId, Route>,
    /// What we say to those who have dialled us and can be called, which are followed then; `None` if nobody is called.
    pub call_back: Option<Hello>,
    /// What the store remembers: the tree of one of them, or what is known of the share that is in the folder.
    pub remembered: Option<Remembered>,
}

/// How to reach a peer.
#[derive(Debug, Clone)]
pub struct Route {
    /// Its addresses, in the order in which to try.
    pub addresses: Vec<String>,
    /// What we say of ourselves when it answers.
    pub hello: Hello,
}

/// One device's part in one share, running.
pub struct Node {
    core: Ranked<Core>,
    started_at: Instant,
    runtime: Runtime,
    /// Rung when the next timer is earlier than the one that is waited for.
    timer_moved: Arc<Notify>,
    transport: Arc<dyn Transport>,
    store: Arc<dyn Store>,
    folder: Option<Arc<dyn Folder>>,
    admission: Arc<dyn Admission>,
    /// Held for moments, and never while another lock is taken.
    routes: Mutex<BTreeMap<PeerId, Route>>,
    /// How those are called who have dialled us, if they are.
    calling_back: Option<CallingBack>,
    /// How those call us whom we have dialled, if there is anything to call for.
    callable: Option<Callable>,
    /// What answers those who dial us, if that was left to us.
    answering: OnceLock<Answering>,
    introducing: OnceLock<Introducing>,
    epoch: u64,
    /// Whether the folder is kept the same as those of peers.
    keeps_folder: bool,
    /// What of the tree of a peer is written down, if one is remembered.
    remembering: Option<Remembering>,
    /// What is noted of the folder, if what is known of it is remembered.
    journaling: Option<Journaling>,
    /// When what the store remembered of the tree was so, if it did.
    recalled_at_unix_seconds: OnceLock<u64>,
    /// Ourselves, for tasks that outlive a call.
    this: std::sync::Weak<Node>,
}

/// Hears every notice, in order, while the engine is locked: it must neither wait nor ask the node anything.
pub type NoticeSink = Box<dyn FnMut(&Notice) + Send>;

impl Node {
    /// Starts a node on the current runtime. It follows its peers until [`Node::shut_down`].
    #[must_use]
    pub fn start(parts: Parts) -> Arc<Node> {
        let (epoch, keeps_folder) = (parts.config.epoch, parts.config.keeps_folder);
        let (remembering, journaling) = match parts.remembered {
            Some(Remembered::Tree(id)) => (Some(Remembering::new(id)), None),
            Some(Remembered::Folder(share)) => (None, Some(Journaling::new(share))),
            None => (None, None),
        };
        let node = Arc::new_cyclic(|this| Node {
            core: Ranked::new(Rank::Node, Core::new(Engine::new(parts.config, parts.seed, Time::ZERO))),
            started_at: Instant::now(),
            runtime: Runtime::current(),
            timer_moved: Arc::new(Notify::new()),
            calling_back: parts.call_back.map(|hello| CallingBack::new(this.clone(), hello)),
            callable: (parts.folder.is_some() && !parts.peers.is_empty())
                .then(|| Callable::start(this.clone(), &Runtime::current())),
            transport: parts.transport,
            store: parts.store,
            folder: parts.folder,
            admission: parts.admission,
            routes: Mutex::new(parts.peers),
            answering: OnceLock::new(),
            introducing: OnceLock::new(),
            epoch,
            keeps_folder,
            remembering,
            journaling,
            recalled_at_unix_seconds: OnceLock::new(),
            this: this.clone(),
        });
        let (held, pins) = (node.store.held(), node.store.pins());
        node.step(Input::Held { held, pins });
        if let Some(at) = node.recall(parts.remembered) {
            node.recalled_at_unix_seconds.get_or_init(|| at);
        }
        match parts.remembered {
            Some(Remembered::Tree(_)) => _ = node.runtime.spawn(remembering::run_remembering(Arc::downgrade(&node))),
            Some(Remembered::Folder(_)) => {
                node.runtime.spawn(journaling::run_noting(Arc::downgrade(&node)));
                node.runtime.spawn(journaling::run_copying(Arc::downgrade(&node)));
            }
            None => {}
        }
        node.runtime.spawn(run_timers(Arc::downgrade(&node), node.timer_moved.clone(), node.started_at));
        node
    }

    /// Begins to follow every peer that it knows a way to. Whoever wants to hear of it registers a sink before.
    pub fn follow_peers(&self) {
        let peers: Vec<PeerId> = self.routes().keys().copied().collect();
        for peer in peers {
            self.command(Command::Follow { peer });
        }
    }

    /// When what the store remembered of the tree was so, in seconds since 1970; `None` if it remembered nothing. It is shown
    /// until its owner says more.
    #[must_use]
    pub fn recalled_at_unix_seconds(&self) -> Option<u64> {
        self.recalled_at_unix_seconds.get().copied()
    }

    /// From now on, `sink` hears every notice.
    pub fn on_notice(&self, sink: NoticeSink) {
        self.lock().sinks.push(sink);
    }

    /// From now on, `recorder` hears of every step: what the engine was told, and what it made of that.
    pub fn record(&self, recorder: Recorder) {
        self.lock().recorder = Some(recorder);
    }

    /// Asks the engine. `answer` runs exactly once, never under the lock: before this returns if the answer is known,
    /// otherwise later, on whichever thread brings what was missing.
    pub fn ask<F>(&self, request: Request, answer: F)
    where
        F: FnOnce(Result<Answer, Errno>) + Send + 'static,
    {
        let mut core = self.lock();
        let id = core.next_request();
        if let Request::Release { handle } = request {
            core.locals.remove(&handle);
        }
        core.step(self.now(), Input::Request(id, request));
        let (mine, answer) = match core.take_reply(id) {
            Some(result) => (Some((answer, result)), None),
            None => (None, Some(answer)),
        };
        if let Some(answer) = answer {
            core.answers.insert(id, Box::new(answer));
        }
        let todo = self.settle(&mut core);
        drop(core);
        if let Some((answer, result)) = mine {
            answer(result.and_then(|found| self.open_local(found)));
        }
        self.carry_out(todo);
    }

    /// Opens the file behind an answer, if it is one of our own folder.
    fn open_local(&self, answer: Answer) -> Result<Answer, Errno> {
        let Answer::Reply(Reply::Opened(Opened { handle, local: Some(path), whole: _ })) = &answer else {
            return Ok(answer);
        };
        match self.folder.as_ref().ok_or(Errno::Io).and_then(|folder| folder.open_local(path)) {
            Ok(file) => {
                self.lock().locals.insert(*handle, Arc::new(file));
                Ok(answer)
            }
            Err(errno) => {
                self.ask(Request::Release { handle: *handle }, |_| {});
                Err(errno)
            }
        }
    }

    /// The file of the store that holds the bytes of what is open, if all of it is there.
    #[must_use]
    pub fn file_of(&self, opened: &Opened) -> Option<Arc<File>> {
        let content = self.lock().contents.get(&opened.whole?)?.clone();
        content.stored()?.file()
    }

    /// Asks the engine and waits for the answer.
    ///
    /// # Errors
    /// What the engine says; [`Errno::Io`] if the node ends meanwhile.
    pub async fn ask_and_wait(&self, request: Request) -> Result<Answer, Errno> {
        let (sender, receiver) = oneshot::channel();
        self.ask(request, move |result| {
            // Whoever asked may have gone.
            let _ = sender.send(result);
        });
        receiver.await.unwrap_or(Err(Errno::Io))
    }

    /// Asks for anything but bytes and waits for the answer.
    ///
    /// # Errors
    /// What the engine says.
    pub async fn reply(&self, request: Request) -> Result<Reply, Errno> {
        match self.ask_and_wait(request).await? {
            Answer::Reply(reply) => Ok(reply),
            Answer::Bytes(_) => Err(Errno::Invalid),
        }
    }

    /// The kernel has forgotten some lookups of an entry.
    pub fn forget(&self, ino: Ino, lookups: u64) {
        self.step(Input::Forget { ino, lookups });
    }

    /// What was seen in the folder that is shared.
    ///
    /// That something was renamed may be told twice, by who has done it and by who watches, and something else may stand
    /// under the old name the second time. So a rename is believed if what was found under the new name is what was last
    /// seen under the old one; otherwise only that it was found. What is in a directory that was not moved there with all that
    /// was known of it has not been told: it is read anew.
    pub fn observe(&self, observations: Vec<Observation>) {
        let mut core = self.lock();
        let mut unread = Vec::new();
        let mut observations = observations.into_iter().peekable();
        while let Some(observation) = observations.next() {
            if let Observation::Moved { from, to } = &observation
                && let Some(Observation::Found { path, seen }) = observations.peek()
                && path == to
            {
                let (inode, is_dir, to) = (Some(seen.facts.inode), seen.kind == SeenKind::Dir, to.clone());
                let was_told = core.engine.view().own_inode(&to) == inode;
                if core.engine.view().own_inode(from) == inode {
                    core.step(self.now(), Input::Observed(observation));
                }
                if is_dir && !was_told && core.engine.view().own_inode(&to) != inode {
                    unread.push(to);
                }
                continue;
            }
            core.step(self.now(), Input::Observed(observation));
        }
        let mut todo = self.settle(&mut core);
        todo.looks.retain(|(path, _)| !unread.contains(path));
        todo.looks.extend(unread.into_iter().map(|path| (path, None)));
        drop(core);
        self.carry_out(todo);
    }

    /// The network may be back: peers that are away are tried at once.
    pub fn network_changed(&self) {
        self.command(Command::NetworkChanged);
    }

    /// What a person, or the program on behalf of one, wants. Whoever wants everything to end uses [`Node::shut_down`].
    pub fn command(&self, command: Command) {
        self.step(Input::Command(command));
    }

    /// Looks at the engine.
    pub fn view<T>(&self, look: impl FnOnce(farshore_engine::View<'_>) -> T) -> T {
        look(self.lock().engine.view())
    }

    /// Frames that are in memory because they are not in the store yet.
    #[must_use]
    pub fn held_frames(&self) -> usize {
        self.lock().contents.values().map(|content| content.held_frames()).sum()
    }

    /// Makes a complete content an ordinary file; see [`crate::store::Stored::keep`].
    ///
    /// # Errors
    /// What the disk says; `AlreadyExists` if something is there.
    pub async fn keep(
        &self,
        content: farshore_engine::ContentId,
        target: std::path::PathBuf,
        mode: u16,
        modified: farshore_engine::record::FileTime,
        xattrs: farshore_engine::Xattrs,
    ) -> std::io::Result<()> {
        let known = self.lock().contents.get(&content).and_then(|content| content.stored());
        let stored = match known {
            Some(stored) => stored,
            // Nothing was ever stored of it: an empty file.
            None => {
                let identity = self.view(|view| view.identity(content)).ok_or(std::io::ErrorKind::NotFound)?;
                self.store.create(&identity, &RelPath::ROOT)?
            }
        };
        stored.keep(target, mode, modified, xattrs).await
    }

    /// Ends everything: whoever waits gets an error, connections are closed. Returns when that has ended, or after three
    /// seconds.
    pub async fn shut_down(&self) {
        let known = self.last_known().await;
        // Before the engine: one that has been shut down has no news, and answers that at once, again and again.
        let servers: Vec<&Answering> =
            self.callable.iter().map(|callable| &callable.answering).chain(self.answering.get()).collect();
        servers.iter().for_each(|server| server.stop());
        // Taken away first, so that hanging up leaves them to us.
        let links = std::mem::take(&mut self.lock().links);
        self.step(Input::Command(Command::Shutdown));
        join_all(links.values().map(|link| link.say_goodbye())).await;
        for server in servers {
            server.ended().await;
        }
        let ended = async {
            while self.view(|view| view.running()) > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        if tokio::time::timeout(SHUTDOWN_LIMIT, ended).await.is_err() {
            tracing::warn!("some downloads did not stop in time and were left behind");
        }
        // The lock is let go of before what it gave away is dropped, and before anything is waited for.
        let left = self.lock().end();
        drop(left);
        self.timer_moved.notify_one();
        self.end_remembering(known).await;
        self.end_journaling().await;
        if let Err(error) = self.store.close().await {
            tracing::warn!(
                "what was downloaded was not all written down: {error}; it is looked through at the next start"
            );
        }
    }

    /// Hands one input in, and carries out what follows.
    fn step(&self, input: Input) {
        let mut core = self.lock();
        core.step(self.now(), input);
        let todo = self.settle(&mut core);
        drop(core);
        self.carry_out(todo);
    }

    /// Moves what the engine wants out of the lock, and lets the timer task know if it has to wake earlier.
    fn settle(&self, core: &mut Core) -> Todo {
        let todo = core.settle();
        if core.timer_is_earlier() {
            self.timer_moved.notify_one();
        }
        if let Some(journaling) = &self.journaling
            && core.engine.view().has_changes()
        {
            journaling.note_news();
        }
        todo
    }

    fn carry_out(&self, todo: Todo) {
        if let Some(pins) = todo.pins {
            let store = self.store.clone();
            self.store.later(Box::new(move || {
                if let Err(error) = store.save_pins(&pins) {
                    tracing::warn!("what is pinned cannot be written down, and is forgotten at the end: {error}");
                }
            }));
        }
        for (answer, result) in todo.answers {
            answer(result);
        }
        for (id, effect) in todo.effects {
            self.begin(id, effect);
        }
        for (path, known) in todo.looks {
            if let Some(folder) = &self.folder {
                folder.look_at(&path, known);
            }
        }
        let (gone, evicted) = ((todo.dropped, todo.dropped_bases), todo.evicted);
        if !(gone.0.is_empty() && gone.1.is_empty() && evicted.is_empty()) {
            let store = self.store.clone();
            // Removes files.
            self.store.later(Box::new(move || {
                drop(gone);
                evicted.into_iter().for_each(|key| store.evict(key));
            }));
        }
    }

    /// The engine's clock.
    #[must_use]
    pub fn now(&self) -> Time {
        // Half a million years fit.
        Time::from_micros(self.started_at.elapsed().as_micros() as u64)
    }

    fn lock(&self) -> RankedGuard<'_, Core> {
        // A panic under the lock is a bug in the engine or here. What is left is still consistent enough to unmount.
        self.core.lock()
    }
}

/// Sends a tick whenever a timer is due, until the node is gone or has ended.
async fn run_timers(node: std::sync::Weak<Node>, moved: Arc<Notify>, started_at: Instant) {
    loop {
        // Not held while it waits: a node that nobody else holds goes.
        let next = {
            let Some(node) = node.upgrade() else { return };
            let mut core = node.lock();
            if core.has_ended {
                return;
            }
            core.timer_at = core.engine.next_timer().map(|(at, _)| at);
            core.timer_at
        };
        let due = async {
            match next {
                Some(at) => tokio::time::sleep_until(started_at + Duration::from_micros(at.as_micros())).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = moved.notified() => {}
            () = due => {
                let Some(node) = node.upgrade() else { return };
                node.step(Input::Tick);
            }
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // The timer task looks whether there still is a node.
        self.timer_moved.notify_one();
        if let Some(remembering) = &self.remembering {
            remembering.note_news();
        }
        if let Some(journaling) = &self.journaling {
            journaling.note_news();
        }
    }
}
