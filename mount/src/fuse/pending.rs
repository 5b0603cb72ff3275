//! A reply that the kernel still waits for. Losing one would leave a program hanging or failing for no reason, so
//! a lost one is counted, said aloud and answered with EIO.

use super::errno::errno;
use super::host::Answer;
use farshore_engine::Errno;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A reply that can be an error: all of them.
pub(super) trait Refuse {
    /// Answers with this number.
    fn refuse(self, error: fuser::Errno);
}

macro_rules! refuse {
    ($($reply:ty),*) => {$(
        impl Refuse for $reply {
            fn refuse(self, error: fuser::Errno) {
                self.error(error);
            }
        }
    )*};
}

refuse!(
    fuser::ReplyAttr,
    fuser::ReplyData,
    fuser::ReplyDirectory,
    fuser::ReplyDirectoryPlus,
    fuser::ReplyEmpty,
    fuser::ReplyEntry,
    fuser::ReplyOpen,
    fuser::ReplyStatfs
);

/// How many replies were dropped without an answer. Any is a defect of the host.
#[derive(Debug, Clone, Default)]
pub(super) struct LostReplies(Arc<AtomicU64>);

impl LostReplies {
    /// How many so far.
    pub(super) fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A reply on its way: used up by exactly one of [`Pending::send`], [`Pending::refuse`] and [`Pending::fail`].
pub(super) struct Pending<R: Refuse> {
    reply: Option<R>,
    operation: &'static str,
    lost: LostReplies,
}

impl<R: Refuse> Pending<R> {
    /// Takes care of `reply` to `operation`.
    pub(super) fn new(operation: &'static str, reply: R, lost: &LostReplies) -> Pending<R> {
        Pending { reply: Some(reply), operation, lost: lost.clone() }
    }

    /// Answers.
    pub(super) fn send(mut self, answer: impl FnOnce(R)) {
        if let Some(reply) = self.reply.take() {
            answer(reply);
        }
    }

    /// Changes the answer that is being put together.
    pub(super) fn edit<T>(&mut self, edit: impl FnOnce(&mut R) -> T) -> Option<T> {
        self.reply.as_mut().map(edit)
    }

    /// Answers with this number.
    pub(super) fn refuse(self, error: fuser::Errno) {
        self.send(|reply| reply.refuse(error));
    }

    /// Answers with the error in `answer`. If that is a success after all, it is the answer to another question.
    pub(super) fn fail<B>(self, answer: Result<Answer<B>, Errno>) {
        match answer {
            Err(error) => self.refuse(errno(error)),
            Ok(_) => {
                tracing::error!(operation = self.operation, "the answer was to another question; the program gets EIO");
                self.refuse(fuser::Errno::EIO);
            }
        }
    }
}

impl<R: Refuse> Drop for Pending<R> {
    fn drop(&mut self) {
        if let Some(reply) = self.reply.take() {
            self.lost.0.fetch_add(1, Ordering::Relaxed);
            tracing::error!(operation = self.operation, "a reply was lost; the program gets EIO");
            reply.refuse(fuser::Errno::EIO);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::rc::Rc;

    #[derive(Clone, Default)]
    struct Log(Rc<RefCell<Vec<fuser::Errno>>>);

    impl Refuse for Log {
        fn refuse(self, error: fuser::Errno) {
            self.0.borrow_mut().push(error);
        }
    }

    #[test]
    fn a_dropped_reply_is_counted_and_answered() {
        let (log, lost) = (Log::default(), LostReplies::default());
        drop(Pending::new("read", log.clone(), &lost));
        assert_eq!(*log.0.borrow(), [fuser::Errno::EIO]);
        assert_eq!(lost.count(), 1);
    }

    #[test]
    fn an_answered_reply_is_not_lost() {
        let (log, lost) = (Log::default(), LostReplies::default());
        Pending::new("read", log.clone(), &lost).send(|_| {});
        Pending::new("read", log.clone(), &lost).fail::<()>(Err(Errno::Stale));
        Pending::new("read", log.clone(), &lost).fail(Ok(Answer::Bytes(())));
        assert_eq!(*log.0.borrow(), [fuser::Errno::ESTALE, fuser::Errno::EIO]);
        assert_eq!(lost.count(), 0);
    }
}
