//! Trouble as a test has planned it, and a record of what was done to the disk.

use super::{Call, Errno};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Fault {
    /// The call fails.
    Error(Errno),
    /// It reads or writes at most so many bytes. Other calls are as ever.
    Short(usize),
}

/// Something that was done to the disk, or is about to be: only the last can have failed for another reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) enum Done {
    Create(String),
    CreateNew(String),
    SetLen(String, u64),
    Write(String, u64, Vec<u8>),
    Sync(String),
    SyncAll,
    SyncNames(String),
    /// The system could not make a file durable, or all of them, and may have let go of what was written.
    SyncFailed(Option<String>),
    Rename(String, String),
    Remove(String),
}

#[derive(Debug, Default)]
struct Plan {
    /// Calls that were made so far.
    calls: usize,
    /// The number of the call that goes wrong, from 0.
    fault: Option<(usize, Fault)>,
    has_struck: bool,
    done: Vec<Done>,
}

/// Trouble for all directories of one store. Cloning gives the same.
#[derive(Debug, Clone, Default)]
pub(in super::super) struct Trouble(Arc<Mutex<Plan>>);

impl Trouble {
    pub(in super::super) fn none() -> Trouble {
        Trouble::default()
    }

    /// From now on counts calls anew, and call number `at` goes wrong.
    pub(in super::super) fn plan(&self, at: usize, fault: Fault) {
        let mut plan = self.lock();
        (plan.calls, plan.fault, plan.has_struck) = (0, Some((at, fault)), false);
    }

    /// From now on all is well. Says whether anything went wrong since it was planned.
    pub(in super::super) fn heal(&self) -> bool {
        let mut plan = self.lock();
        plan.fault = None;
        plan.has_struck
    }

    /// Whether anything went wrong since it was planned.
    pub(in super::super) fn has_struck(&self) -> bool {
        self.lock().has_struck
    }

    /// What was done to the disk so far.
    pub(in super::super) fn done(&self) -> Vec<Done> {
        self.lock().done.clone()
    }

    pub(in super::super) fn meet(&self, call: Call<'_>) -> Result<Option<usize>, Errno> {
        let mut plan = self.lock();
        let number = plan.calls;
        plan.calls += 1;
        let fault = plan.fault.filter(|(at, _)| *at == number).map(|(_, fault)| fault);
        plan.has_struck |= fault.is_some();
        let most = match fault {
            Some(Fault::Error(errno)) => {
                match call {
                    Call::Sync(name) => plan.done.push(Done::SyncFailed(Some(name.to_owned()))),
                    Call::SyncAll => plan.done.push(Done::SyncFailed(None)),
                    Call::Create(_)
                    | Call::CreateNew(_)
                    | Call::Open
                    | Call::SetLen(..)
                    | Call::Write(..)
                    | Call::Read
                    | Call::SyncNames(_)
                    | Call::Rename(..)
                    | Call::Remove(_)
                    | Call::Space => {}
                }
                return Err(errno);
            }
            Some(Fault::Short(most)) => Some(most),
            None => None,
        };
        let owned = str::to_owned;
        plan.done.extend(match call {
            Call::Create(name) => Some(Done::Create(owned(name))),
            Call::CreateNew(name) => Some(Done::CreateNew(owned(name))),
            Call::SetLen(name, len) => Some(Done::SetLen(owned(name), len)),
            Call::Write(name, offset, slices) => {
                let slices = if most.is_some() { &slices[..1] } else { slices };
                let mut bytes = slices.iter().map(|slice| &slice[..]).collect::<Vec<&[u8]>>().concat();
                bytes.truncate(most.unwrap_or(usize::MAX));
                Some(Done::Write(owned(name), offset, bytes))
            }
            Call::Sync(name) => Some(Done::Sync(owned(name))),
            Call::SyncAll => Some(Done::SyncAll),
            Call::SyncNames(name) => Some(Done::SyncNames(owned(name))),
            Call::Rename(from, to) => Some(Done::Rename(owned(from), owned(to))),
            Call::Remove(name) => Some(Done::Remove(owned(name))),
            Call::Open | Call::Read | Call::Space => None,
        });
        Ok(most)
    }

    fn lock(&self) -> MutexGuard<'_, Plan> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
