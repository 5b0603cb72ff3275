//! Which number the kernel gets for each error.

use farshore_engine::Errno;
use farshore_engine::path::PathError;

/// The number for an error of the engine.
pub(crate) fn errno(error: Errno) -> fuser::Errno {
    match error {
        Errno::NoEntry => fuser::Errno::ENOENT,
        // The bytes cannot be had now: EIO is what programs expect from a disk that does not deliver. EAGAIN would
        // make some of them spin, and ETIMEDOUT is unknown to most.
        Errno::Io => fuser::Errno::EIO,
        // As on NFS: the file that was opened is not there any more. For names and attributes the kernel takes
        // ESTALE as "look it up again", which is what is wanted there too.
        Errno::Stale => fuser::Errno::ESTALE,
        Errno::BadHandle => fuser::Errno::EBADF,
        Errno::NotDir => fuser::Errno::ENOTDIR,
        Errno::IsDir => fuser::Errno::EISDIR,
        Errno::Invalid => fuser::Errno::EINVAL,
        Errno::ReadOnly => fuser::Errno::EROFS,
        Errno::NoSpace => fuser::Errno::ENOSPC,
        Errno::TooMany => fuser::Errno::ENOBUFS,
    }
}

/// The number for a name that no entry can have.
pub(super) fn name_errno(error: PathError) -> fuser::Errno {
    match error {
        PathError::NameTooLong | PathError::PathTooLong => fuser::Errno::ENAMETOOLONG,
        // The kernel resolves `.` and `..` itself and never sends a slash, a NUL or nothing. If it does, there is no
        // such entry: an error of another kind would make `stat` fail in a way that programs do not expect.
        PathError::EmptyName | PathError::DotName | PathError::Slash | PathError::Nul | PathError::EmptyPath => {
            fuser::Errno::ENOENT
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_has_the_number_of_its_name() {
        let expected = [
            (Errno::NoEntry, libc::ENOENT),
            (Errno::Io, libc::EIO),
            (Errno::Stale, libc::ESTALE),
            (Errno::BadHandle, libc::EBADF),
            (Errno::NotDir, libc::ENOTDIR),
            (Errno::IsDir, libc::EISDIR),
            (Errno::Invalid, libc::EINVAL),
            (Errno::ReadOnly, libc::EROFS),
            (Errno::NoSpace, libc::ENOSPC),
            (Errno::TooMany, libc::ENOBUFS),
        ];
        for (error, number) in expected {
            assert_eq!(errno(error), fuser::Errno::from_i32(number), "{error:?}");
        }
    }

    #[test]
    fn a_name_that_is_too_long_says_so() {
        assert_eq!(name_errno(PathError::NameTooLong), fuser::Errno::ENAMETOOLONG);
        assert_eq!(name_errno(PathError::DotName), fuser::Errno::ENOENT);
    }
}
