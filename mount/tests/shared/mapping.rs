//! Files as they look through `mmap`.

use std::fs::File;
use std::os::fd::AsRawFd;

/// A read-only mapping of the beginning of a file, which stays mapped when the file is closed.
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
        // SAFETY: a fresh mapping at an address of the kernel's choice; nothing else refers to it.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), len, libc::PROT_READ, kind, file.as_raw_fd(), 0) };
        assert_ne!(at, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
        Mapping { at, len }
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
        // SAFETY: mapped in `new`, and nobody can refer to it any more.
        let unmapped = unsafe { libc::munmap(self.at, self.len) };
        assert_eq!(unmapped, 0);
    }
}
