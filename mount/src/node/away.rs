//! What peers have and the folder that is kept has not yet, as a mount of that folder wants it.

use super::{Answer, Node};
use crate::live::{Away, Read, Then};
use farshore_engine::path::{Name, RelPath};
use farshore_engine::{Attr, Errno, Handle, Ino, Notice, Reply, Request, Xattrs};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread;

impl Node {
    /// What is away, if it keeps a folder.
    #[must_use]
    pub fn away(self: &Arc<Node>) -> Option<Arc<dyn Away>> {
        self.keeps_folder.then(|| Arc::clone(self) as Arc<dyn Away>)
    }
}

impl Away for Node {
    fn at(&self, path: &RelPath) -> Option<Attr> {
        self.view(|view| view.away(path))
    }

    fn within(&self, dir: &RelPath) -> Vec<(Name, Attr)> {
        self.view(|view| view.away_in(dir).map(|(name, attr)| (name.clone(), attr)).collect())
    }

    fn xattrs(&self, path: &RelPath) -> Xattrs {
        self.view(|view| view.away_xattrs(path))
    }

    fn is_any_within(&self, dir: &RelPath) -> bool {
        self.view(|view| view.away_in(dir).next().is_some())
    }

    fn is_coming(&self, path: &RelPath) -> bool {
        self.view(|view| view.is_being_applied(path))
    }

    fn open(&self, ino: Ino) -> Result<Handle, Errno> {
        let (sender, answer) = channel();
        // Only reads wait, so whoever asks is still there.
        self.ask(Request::Open { ino, write: false, whole_from: None }, move |result| drop(sender.send(result)));
        match answer.recv().unwrap_or(Err(Errno::Io))? {
            Answer::Reply(Reply::Opened(opened)) => Ok(opened.handle),
            Answer::Reply(_) | Answer::Bytes(_) => Err(Errno::Io),
        }
    }

    fn read(&self, handle: Handle, offset: u64, len: u32, then: Then<Read>) {
        self.ask(Request::Read { handle, offset, len }, |result| {
            then(result.and_then(|answer| match answer {
                Answer::Bytes(bytes) => Ok(Box::new(bytes) as Box<dyn crate::fuse::Readable>),
                Answer::Reply(_) => Err(Errno::Io),
            }));
        });
    }

    fn release(&self, handle: Handle) {
        self.ask(Request::Release { handle }, |_| {});
    }

    fn bring(&self, path: &RelPath, then: Then<Result<(), Errno>>) {
        self.ask(Request::Bring { path: path.clone() }, |result| {
            // Answers come on threads that must not wait for a disk.
            let answer = move || then(result.map(drop));
            if let Err(error) = thread::Builder::new().name("farshore-come".to_owned()).spawn(answer) {
                tracing::error!("no thread can be started: {error}");
            }
        });
    }

    /// The engine says so under its lock, so it is passed on by a thread, which ends with the node.
    fn listen(&self, heard: Box<dyn Fn(&RelPath) + Send>) {
        let (sender, changed) = channel::<RelPath>();
        let pass_on = move || changed.into_iter().for_each(|path| heard(&path));
        if let Err(error) = thread::Builder::new().name("farshore-away".to_owned()).spawn(pass_on) {
            tracing::error!("no thread can be started: {error}; what changes while it is away shows late on the mount");
            return;
        }
        self.on_notice(Box::new(move |notice| {
            if let Notice::Announced { path, .. } = notice {
                // The thread ends only if this panics, and then nobody listens.
                let _ = sender.send(path.clone());
            }
        }));
    }
}
