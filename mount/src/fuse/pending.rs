//! A reply that the kernel still waits for. Losing one would leave a program hanging or failing for no reason, so
//! a lost one is counted, said aloud and answered with EIO.

use super::errno::errno;
use super::host::Answer;
use super::stats::{Operation, Stats};
use farshore_engine::Errno;
use std::sync::Arc;
use std::time::Instant;

/// A reply that can be an error: all of them.
pub(crate) trait Refuse {
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
    fuser::ReplyCreate,
    fuser::ReplyData,
    fuser::ReplyDirectory,
    fuser::ReplyDirectoryPlus,
    fuser::ReplyEmpty,
    fuser::ReplyEntry,
    fuser::ReplyLseek,
    fuser::ReplyOpen,
    fuser::ReplyStatfs,
    fuser::ReplyWrite,
    fuser::ReplyXattr
);

/// A reply on its way: used up by exactly one of [`Pending::send`], [`Pending::refuse`] and [`Pending::fail`].
pub(crate) struct Pending<R: Refuse> {
    reply: Option<R>,
    operation: Operation,
    asked_at: Instant,
    stats: Arc<Stats>,
}

impl<R: Refuse> Pending<R> {
    /// Takes care of `reply` to `operation`.
    pub(crate) fn new(operation: Operation, reply: R, stats: &Arc<Stats>) -> Pending<R> {
        Pending { reply: Some(reply), operation, asked_at: Instant::now(), stats: Arc::clone(stats) }
    }

    /// Answers.
    pub(crate) fn send(self, answer: impl FnOnce(R)) {
        self.end(false, answer);
    }

    /// Changes the answer that is being put together.
    pub(crate) fn edit<T>(&mut self, edit: impl FnOnce(&mut R) -> T) -> Option<T> {
        self.reply.as_mut().map(edit)
    }

    /// Answers with this number.
    pub(crate) fn refuse(self, error: fuser::Errno) {
        self.end(true, |reply| reply.refuse(error));
    }

    /// Counts the answer before the program hears of it, so that who has read and then looks finds it counted.
    fn end(mut self, is_error: bool, answer: impl FnOnce(R)) {
        if let Some(reply) = self.reply.take() {
            self.stats.answered(self.operation, self.asked_at.elapsed(), is_error);
            answer(reply);
        }
    }

    /// Answers with the error in `answer`. If that is a success after all, it is the answer to another question.
    pub(crate) fn fail<B>(self, answer: Result<Answer<B>, Errno>) {
        match answer {
            Err(error) => self.refuse(errno(error)),
            Ok(_) => {
                tracing::error!(
                    operation = self.operation.name(),
                    "the answer was to another question; the program gets EIO"
                );
                self.refuse(fuser::Errno::EIO);
            }
        }
    }
}

impl<R: Refuse> Drop for Pending<R> {
    fn drop(&mut self) {
        if let Some(reply) = self.reply.take() {
            self.stats.lost();
            tracing::error!(operation = self.operation.name(), "a reply was lost; the program gets EIO");
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
        let (log, stats) = (Log::default(), Arc::new(Stats::default()));
        drop(Pending::new(Operation::Read, log.clone(), &stats));
        assert_eq!(*log.0.borrow(), [fuser::Errno::EIO]);
        assert_eq!(stats.lost_replies(), 1);
    }

    #[test]
    fn an_answered_reply_is_not_lost() {
        let (log, stats) = (Log::default(), Arc::new(Stats::default()));
        Pending::new(Operation::Read, log.clone(), &stats).send(|_| {});
        Pending::new(Operation::Read, log.clone(), &stats).fail::<()>(Err(Errno::Stale));
        Pending::new(Operation::Read, log.clone(), &stats).fail(Ok(Answer::Bytes(())));
        assert_eq!(*log.0.borrow(), [fuser::Errno::ESTALE, fuser::Errno::EIO]);
        assert_eq!(stats.lost_replies(), 0);
        let counted = stats.operation(Operation::Read);
        assert_eq!((counted.count, counted.errors), (3, 2));
        assert_eq!(stats.operation(Operation::Lookup).count, 0);
    }
}
