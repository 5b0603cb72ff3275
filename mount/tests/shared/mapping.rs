//! Files as they look through `mmap`.

use std::fs::File;
use std::os::fd::AsRawFd;

/// A mapping of the beginning of a file, which stays mapped when the file is closed.
pub(crate) struct Mapping {
    at: *mut libc::c_void,
    len: usize,
}

#[allow(unsafe_code)]
impl Mapping {
    /// Maps `len` bytes, which the file must have for as long as they are looked at: shared, or private with
    /// `copy_on_write`.
    pub(crate) fn new(file: &File, len: usize, copy_on_write: bool) -> Mapping {
        let kind = if copy_on_write { libc::MAP_PRIVATE } else { libc::MAP_SHARED };
        Mapping::of(file, len, kind, libc::PROT_READ)
    }

    /// Maps `len` bytes shared, to be written.
    pub(crate) fn to_write(file: &File, len: usize) -> Mapping {
        Mapping::of(file, len, libc::MAP_SHARED, libc::PROT_READ | libc::PROT_WRITE)
    }

    fn of(file: &File, len: usize, kind: libc::c_int, rights: libc::c_int) -> Mapping {
        // SAFETY: a fresh mapping at an address of the kernel's choice; nothing else refers to it.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), len, rights, kind, file.as_raw_fd(), 0) };
        assert_ne!(at, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
        Mapping { at, len }
    }

    /// Writes to a mapping that was made for that.
    pub(crate) fn write(&mut self, at: usize, bytes: &[u8]) {
        assert!(at + bytes.len() <= self.len);
        // SAFETY: `self.at` is mapped writable for `len` bytes until this is dropped, and nobody looks at them meanwhile.
        let mapped = unsafe { std::slice::from_raw_parts_mut(self.at.cast::<u8>(), self.len) };
        mapped[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// What was written so far is on the disk when this returns.
    pub(crate) fn sync(&self) {
        // SAFETY: mapped in `of`.
        assert_eq!(unsafe { libc::msync(self.at, self.len, libc::MS_SYNC) }, 0);
    }

    /// The bytes as they are now.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        // SAFETY: `at` is mapped readable for `len` bytes until this is dropped. The bytes may change between two looks,
        // not during one: tests change files only when nobody looks.
        unsafe { std::slice::from_raw_parts(self.at.cast::<u8>(), self.len) }.to_vec()
    }
}

#[allow(unsafe_code)]
impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped in `of`, and nobody can refer to it any more.
        let unmapped = unsafe { libc::munmap(self.at, self.len) };
        assert_eq!(unmapped, 0);
    }
}
