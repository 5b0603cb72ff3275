//! What changes together with the engine, under one lock, and what an output leaves to be done without it.

use super::NoticeSink;
use super::answers::{Answer, Bytes};
use super::contents::Content;
use super::effects::Job;
use crate::net::client::{CancelSignal, Canceller, Link, cancel_pair};
use crate::store::Stored;
use farshore_engine::path::RelPath;
use farshore_engine::{
    Apply, ContentId, ContentIdentity, ContentKey, Effect, EffectId, Engine, Errno, Handle, Input, LinkId, Notice,
    Output, Reply, ReqId, Source, Span, Time, Wanted,
};
use std::collections::BTreeMap;
use std::fs::File;
use std::sync::Arc;

/// Runs when a request is answered.
type AnswerFn = Box<dyn FnOnce(Result<Answer, Errno>) + Send>;

/// One step of the engine, as a [`Recorder`] sees it.
pub struct Step<'a> {
    /// When, by the engine's clock.
    pub now: Time,
    /// What it was told.
    pub input: &'a Input,
    /// What it made of that, in order.
    pub outputs: &'a [Output],
    /// The engine as it is now.
    pub engine: &'a Engine,
}

/// Hears of every step, while the engine is locked: it must neither wait nor ask the node anything.
pub type Recorder = Box<dyn FnMut(Step<'_>) + Send>;

/// Everything that changes together with the engine.
pub(super) struct Core {
    pub(super) engine: Engine,
    /// Who hears of every step, if anybody does.
    pub(super) recorder: Option<Recorder>,
    /// Requests that are not answered yet.
    pub(super) answers: BTreeMap<ReqId, AnswerFn>,
    /// Contents of which there are bytes, or will be.
    pub(super) contents: BTreeMap<ContentId, Arc<Content>>,
    /// Files of our own folder that are open here.
    pub(super) locals: BTreeMap<Handle, Arc<File>>,
    /// Connections that were made.
    pub(super) links: BTreeMap<LinkId, Arc<Link>>,
    /// How to tell a running effect that it is not needed any more.
    pub(super) cancels: BTreeMap<EffectId, Canceller>,
    pub(super) sinks: Vec<NoticeSink>,
    /// The moment that the timer task waits for.
    pub(super) timer_at: Option<Time>,
    pub(super) has_ended: bool,
    outputs: Vec<Output>,
    last_request: u64,
}

/// What is to be done without the lock, in this order.
#[derive(Default)]
pub(super) struct Todo {
    pub(super) answers: Vec<(AnswerFn, Result<Answer, Errno>)>,
    pub(super) effects: Vec<(EffectId, Job)>,
    pub(super) dropped: Vec<Arc<Content>>,
    pub(super) dropped_bases: Vec<Arc<dyn Stored>>,
    pub(super) evicted: Vec<ContentKey>,
    /// The paths that stay, if they are others now.
    pub(super) pins: Option<Vec<RelPath>>,
    /// Where to look in our own folder, and the inode number of what is known there.
    pub(super) looks: Vec<(RelPath, Option<u64>)>,
}

impl Core {
    pub(super) fn new(engine: Engine) -> Core {
        Core {
            engine,
            recorder: None,
            answers: BTreeMap::new(),
            contents: BTreeMap::new(),
            locals: BTreeMap::new(),
            links: BTreeMap::new(),
            cancels: BTreeMap::new(),
            sinks: Vec::new(),
            timer_at: None,
            has_ended: false,
            outputs: Vec::new(),
            last_request: 0,
        }
    }

    pub(super) fn next_request(&mut self) -> ReqId {
        self.last_request += 1;
        ReqId(self.last_request)
    }

    pub(super) fn step(&mut self, now: Time, input: Input) {
        let Some(recorder) = &mut self.recorder else {
            return self.engine.step(now, input, &mut self.outputs);
        };
        let before = self.outputs.len();
        let told = input.clone();
        self.engine.step(now, input, &mut self.outputs);
        recorder(Step { now, input: &told, outputs: &self.outputs[before..], engine: &self.engine });
    }

    /// The reply to a request that was just handed in, if it is there already. On the hit path it is the only output.
    pub(super) fn take_reply(&mut self, id: ReqId) -> Option<Result<Answer, Errno>> {
        let at = self.outputs.iter().position(|output| matches!(output, Output::Reply(to, _) if *to == id))?;
        match self.outputs.remove(at) {
            Output::Reply(_, result) => Some(result.map(|reply| self.answer(reply))),
            Output::Effect(..) | Output::Cancel(_) | Output::Notice(_) => None,
        }
    }

    /// Whether the engine's next timer is earlier than the one that is waited for.
    pub(super) fn timer_is_earlier(&mut self) -> bool {
        let next = self.engine.next_timer().map(|(at, _)| at);
        let earlier = match (next, self.timer_at) {
            (Some(next), Some(at)) => next < at,
            (Some(_), None) => true,
            (None, _) => false,
        };
        if earlier {
            self.timer_at = next;
        }
        earlier
    }

    /// Turns what the engine put out into what is to be done, in order.
    pub(super) fn settle(&mut self) -> Todo {
        let mut todo = Todo::default();
        let mut outputs = std::mem::take(&mut self.outputs);
        for output in outputs.drain(..) {
            match output {
                Output::Reply(id, result) => {
                    let result = result.map(|reply| self.answer(reply));
                    // An answer without a question would be a bug in the engine, which its own tests look for.
                    if let Some(answer) = self.answers.remove(&id) {
                        todo.answers.push((answer, result));
                    }
                }
                Output::Effect(id, effect) => self.prepare(id, effect, &mut todo),
                Output::Cancel(id) => {
                    if let Some(canceller) = self.cancels.remove(&id) {
                        canceller.cancel();
                    }
                }
                Output::Notice(notice) => {
                    if notice == Notice::PinsChanged {
                        todo.pins = Some(self.engine.view().pins().cloned().collect());
                    } else if let Notice::LookAt { path } = &notice {
                        todo.looks.push((path.clone(), self.engine.view().own_inode(path)));
                    }
                    self.tell(&notice);
                }
            }
        }
        // The buffer is kept, so that a step that puts out little allocates nothing.
        self.outputs = outputs;
        todo
    }

    /// Takes everything away from a node that has ended, so that connections and files go with it.
    pub(super) fn end(&mut self) -> (BTreeMap<LinkId, Arc<Link>>, BTreeMap<ContentId, Arc<Content>>) {
        self.has_ended = true;
        self.sinks.clear();
        (std::mem::take(&mut self.links), std::mem::take(&mut self.contents))
    }

    pub(super) fn tell(&mut self, notice: &Notice) {
        for sink in &mut self.sinks {
            sink(notice);
        }
    }

    /// Adds to a reply what only the driver has: the bytes.
    fn answer(&self, reply: Reply) -> Answer {
        if let Reply::Read(span) = reply { Answer::Bytes(self.bytes(span)) } else { Answer::Reply(reply) }
    }

    fn bytes(&self, span: Span) -> Bytes {
        match span.source {
            Source::Content(id) => match self.contents.get(&id) {
                Some(content) => content.bytes(span.offset, span.len),
                // The engine answers from what was stored, so it is there; an error is better than a panic if not.
                None => Bytes::lost(span.len),
            },
            Source::Local(handle) => match self.locals.get(&handle) {
                Some(file) => Bytes::local(file.clone(), span.offset, span.len),
                None => Bytes::lost(span.len),
            },
            Source::Nothing => Bytes::nothing(),
        }
    }

    /// Looks up what an effect needs while the lock is held. What needs no lock is left to [`super::Node::begin`].
    fn prepare(&mut self, id: EffectId, effect: Effect, todo: &mut Todo) {
        let job = match effect {
            Effect::Dial { peer, link } => Job::Dial { peer, link, cancel: self.cancel(id) },
            Effect::Watch { peer, link, position } => {
                let on = self.links.get(&link).cloned();
                Job::Watch { peer, link, on, position, cancel: self.cancel(id) }
            }
            Effect::Fetch { peer: _, link, wanted, chunk, frames, urgent } => {
                let content = self.content_of(&wanted);
                let on = self.links.get(&link).cloned();
                Job::Fetch { on, content, wanted, chunk, frames, urgent, cancel: self.cancel(id) }
            }
            Effect::Store { content, size_bytes, chunk } => {
                let content = self.contents.get(&content).cloned();
                match content.and_then(|content| Some((content.whole_chunk(chunk, size_bytes)?, content))) {
                    Some((frames, content)) => Job::Store { content, chunk, frames },
                    None => Job::StoreNothing,
                }
            }
            Effect::Resume { content: id, identity, path, own, base } => {
                let content = Arc::new(Content::new(identity, path));
                self.contents.insert(id, content.clone());
                Job::Resume { content, own, base }
            }
            Effect::Verify { content, chunk } => Job::Verify { content: self.contents.get(&content).cloned(), chunk },
            Effect::Compare { peer: _, link, wanted, chunks, in_folder } => {
                let content = self.content_of(&wanted);
                let on = self.links.get(&link).cloned();
                Job::Compare { on, content, wanted, chunks, in_folder, cancel: self.cancel(id) }
            }
            Effect::Save { contents } => {
                let contents = contents.iter().filter_map(|id| self.contents.get(id)?.stored()).collect();
                Job::Save { contents }
            }
            Effect::Apply { ops } => {
                let published = ops.iter().filter_map(|op| match op {
                    Apply::Publish { content, .. } | Apply::KeepCopy { unless: content, .. } => *content,
                    Apply::MakeDir { .. }
                    | Apply::MakeSymlink { .. }
                    | Apply::Remove { .. }
                    | Apply::Rename { .. }
                    | Apply::SetAttributes { .. } => None,
                });
                let stored = |id: ContentId| Some((id, self.contents.get(&id)?.stored()?));
                let contents = published.filter_map(stored).collect();
                Job::Apply { ops, contents }
            }
            Effect::Rebase { content, identity, path, from, older } => {
                let content = self.contents.entry(content);
                let content = content.or_insert_with(|| Arc::new(Content::new(identity, path)));
                let content = content.clone();
                self.close_streams(from);
                if let Some(before) = self.contents.remove(&from) {
                    content.rebase(&before, older);
                    todo.dropped.push(before);
                }
                return;
            }
            Effect::DropBase { content } => {
                todo.dropped_bases.extend(self.contents.get(&content).and_then(|content| content.take_base()));
                return;
            }
            Effect::Moved { content, path } => {
                if let Some(content) = self.contents.get(&content) {
                    content.note_path(&path);
                }
                return;
            }
            Effect::Evict { key } => {
                todo.evicted.push(key);
                return;
            }
            Effect::DropFrames { content, chunk } => {
                if let Some(content) = self.contents.get(&content) {
                    content.drop_frames(chunk);
                }
                return;
            }
            Effect::CloseStreams { content } => return self.close_streams(content),
            // At once, like closing them: what is opened later would not be closed any more.
            Effect::OpenStreams { link, wanted, .. } => {
                if let Some(link) = self.links.get(&link) {
                    link.open_content(&wanted);
                }
                return;
            }
            Effect::Discard { content } => {
                self.close_streams(content);
                if let Some(content) = self.contents.remove(&content) {
                    content.discard();
                    todo.dropped.push(content);
                }
                return;
            }
            Effect::HangUp { link, .. } => {
                if let Some(link) = self.links.remove(&link) {
                    link.hang_up();
                }
                return;
            }
        };
        todo.effects.push((id, job));
    }

    /// The bytes that are wanted, as far as they are here.
    fn content_of(&mut self, wanted: &Wanted) -> Arc<Content> {
        let Wanted { content, ref path, owner, stamp, size_bytes, modified } = *wanted;
        let new = || Arc::new(Content::new(ContentIdentity { owner, stamp, size_bytes, modified }, path.clone()));
        let content = self.contents.entry(content).or_insert_with(new).clone();
        content.note_path(path);
        content
    }

    fn close_streams(&self, content: ContentId) {
        for link in self.links.values() {
            link.close_content(content);
        }
    }

    fn cancel(&mut self, id: EffectId) -> CancelSignal {
        let (canceller, signal) = cancel_pair();
        self.cancels.insert(id, canceller);
        signal
    }
}
