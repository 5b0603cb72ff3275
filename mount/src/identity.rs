//! Who this device is: an Ed25519 key, made at the first start and kept in the state directory.
//!
//! The id of a device is the SHA-256 of its public key (the DER of its SubjectPublicKeyInfo), so whoever proves to
//! hold the key *is* the device: no authority has to vouch for it. TLS wants a certificate around the key; it is made
//! anew at every start, says nothing of its own, and only its key counts.
//!
//! A key that was lost cannot be made again, and every peer knows this device by it. So a key file that cannot be
//! used is an error, and is never replaced by a new key.

use crate::state::{Overwrite, write_durably};
use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::HEXLOWER_PERMISSIVE;
use farshore_engine::PeerId;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ED25519, PublicKeyData};
use rustls::crypto::aws_lc_rs::sign::any_eddsa_type;
use rustls::pki_types::{PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer};
use rustls::sign::CertifiedKey;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The name of the key's file in the state directory.
pub const KEY_FILE: &str = "device.key";

/// An Ed25519 key in PKCS#8 takes 83 bytes; a file longer than this is something else.
const KEY_FILE_BYTES_MAX: u64 = 1024;

/// The key of this device, ready to prove itself with.
#[derive(Clone)]
pub struct Identity {
    id: PeerId,
    certified: Arc<CertifiedKey>,
}

impl Identity {
    /// Reads the device's key from the state directory `dir`, or makes one if there is none.
    ///
    /// Two processes may do so at once: one makes the key and both use it.
    ///
    /// # Errors
    /// The key cannot be read, is damaged, or can be read by other users; or a new one cannot be written.
    pub fn open(dir: &Path) -> Result<Identity, IdentityError> {
        let path = dir.join(KEY_FILE);
        if let Some(pkcs8) = read_key(&path)? {
            return Identity::from_pkcs8(&pkcs8).map_err(|reason| IdentityError::Damaged { path, reason });
        }
        let key = KeyPair::generate_for(&PKCS_ED25519).map_err(|error| IdentityError::Make(error.to_string()))?;
        match write_durably(&path, key.serialized_der(), Overwrite::Never) {
            Ok(()) => Identity::from_pkcs8(key.serialized_der()).map_err(IdentityError::Make),
            // Another process was faster.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let pkcs8 =
                    read_key(&path)?.ok_or_else(|| IdentityError::Write { path: path.clone(), source: error })?;
                Identity::from_pkcs8(&pkcs8).map_err(|reason| IdentityError::Damaged { path, reason })
            }
            Err(source) => Err(IdentityError::Write { path, source }),
        }
    }

    /// The id under which peers know this device.
    pub fn id(&self) -> PeerId {
        self.id
    }

    /// The key and a certificate around it, as TLS wants them.
    pub(crate) fn certified(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.certified)
    }

    fn from_pkcs8(pkcs8: &[u8]) -> Result<Identity, String> {
        let pkcs8 = PrivatePkcs8KeyDer::from(pkcs8.to_vec());
        let key = KeyPair::from_pkcs8_der_and_sign_algo(&pkcs8, &PKCS_ED25519).map_err(|error| error.to_string())?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "farshore");
        let certificate = params.self_signed(&key).map_err(|error| error.to_string())?;
        let signer = any_eddsa_type(&pkcs8).map_err(|error| error.to_string())?;
        let id = device_id(&SubjectPublicKeyInfoDer::from(key.subject_public_key_info()));
        Ok(Identity { id, certified: Arc::new(CertifiedKey::new(vec![certificate.der().clone()], signer)) })
    }
}

impl fmt::Debug for Identity {
    /// The id alone, never the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Identity").field(&self.id).finish()
    }
}

/// The id of the device that holds this public key.
pub(crate) fn device_id(key: &SubjectPublicKeyInfoDer<'_>) -> PeerId {
    PeerId(sha256(key))
}

/// The SHA-256 of `bytes`.
pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
    hash
}

/// Reads a device id as people write it: the 64 hexadecimal digits that [`PeerId`] displays, in either case.
///
/// # Errors
/// It is anything else.
pub fn parse_device_id(text: &str) -> Result<PeerId, NotADeviceId> {
    let bytes = HEXLOWER_PERMISSIVE.decode(text.as_bytes()).map_err(|_| NotADeviceId)?;
    Ok(PeerId(bytes.try_into().map_err(|_| NotADeviceId)?))
}

/// The text is not a device id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a device id is 64 hexadecimal digits, as `farshore id` prints it")]
pub struct NotADeviceId;

/// Why this device has no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file is there, and holds no usable key.
    #[error(
        "the device key {} is damaged ({reason}); put a backup of it back, or move it away to begin with a new key: \
         this device then has a new id, and needs new tickets", path.display()
    )]
    Damaged {
        /// The key file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Other users of this machine can read or change the key.
    #[error(
        "the device key {} is open to other users (mode {mode:o}); if nobody can have copied it, run \
         `chmod 600` on it, otherwise move it away to begin with a new key", path.display()
    )]
    Exposed {
        /// The key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file cannot be read.
    #[error("cannot read the device key {}: {source}", path.display())]
    Read {
        /// The key file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A new key cannot be stored.
    #[error("cannot write the device key {}: {source}", path.display())]
    Write {
        /// The key file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A new key cannot be made.
    #[error("cannot make a device key: {0}")]
    Make(String),
}

/// The contents of the key file, if there is one.
fn read_key(path: &Path) -> Result<Option<Vec<u8>>, IdentityError> {
    let failed = |source| IdentityError::Read { path: path.to_owned(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(IdentityError::Exposed { path: path.to_owned(), mode });
    }
    let mut pkcs8 = Vec::new();
    file.take(KEY_FILE_BYTES_MAX + 1).read_to_end(&mut pkcs8).map_err(failed)?;
    if pkcs8.len() as u64 > KEY_FILE_BYTES_MAX {
        return Err(IdentityError::Damaged { path: path.to_owned(), reason: "it is too long for a key".into() });
    }
    Ok(Some(pkcs8))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::server::ParsedCertificate;
    use std::fs;

    #[test]
    fn a_device_keeps_its_id_over_restarts() {
        let dir = tempfile::tempdir().unwrap();
        let first = Identity::open(dir.path()).unwrap();
        let second = Identity::open(dir.path()).unwrap();
        assert_eq!(first.id(), second.id());
        let names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, [KEY_FILE], "nothing else is left behind");
        let other = tempfile::tempdir().unwrap();
        assert_ne!(first.id(), Identity::open(other.path()).unwrap().id());
    }

    #[test]
    fn the_id_is_the_hash_of_the_key_in_the_certificate() {
        let dir = tempfile::tempdir().unwrap();
        let identity = Identity::open(dir.path()).unwrap();
        let certified = identity.certified();
        let key = ParsedCertificate::try_from(&certified.cert[0]).unwrap().subject_public_key_info();
        assert_eq!(device_id(&key), identity.id());
        certified.keys_match().unwrap();
    }

    #[test]
    fn the_key_is_for_its_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        Identity::open(dir.path()).unwrap();
        let path = dir.path().join(KEY_FILE);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        for mode in [0o640, 0o604, 0o620] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let error = Identity::open(dir.path()).unwrap_err();
            assert!(matches!(error, IdentityError::Exposed { mode: found, .. } if found == mode), "{error}");
        }
    }

    #[test]
    fn a_damaged_key_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        Identity::open(dir.path()).unwrap();
        let path = dir.path().join(KEY_FILE);
        let good = fs::read(&path).unwrap();
        let mut damaged: Vec<Vec<u8>> = vec![vec![], good[..good.len() - 1].to_vec(), vec![b'x'; 5000]];
        damaged.extend((0..good.len() * 8).map(|bit| {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            bytes
        }));
        for bytes in damaged {
            fs::write(&path, &bytes).unwrap();
            let error = Identity::open(dir.path()).expect_err("a damaged key was taken");
            assert!(matches!(error, IdentityError::Damaged { .. }), "{error}");
            assert!(error.to_string().contains(path.to_str().unwrap()));
            assert_eq!(fs::read(&path).unwrap(), bytes);
        }
    }

    #[test]
    fn many_first_starts_at_once_agree_on_one_key() {
        let dir = tempfile::tempdir().unwrap();
        let ids: Vec<PeerId> = std::thread::scope(|scope| {
            let starts: Vec<_> = (0..8).map(|_| scope.spawn(|| Identity::open(dir.path()).unwrap().id())).collect();
            starts.into_iter().map(|start| start.join().unwrap()).collect()
        });
        assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "the slower ones left nothing behind");
    }

    #[test]
    fn device_ids_are_read_as_they_are_written() {
        let id = PeerId(std::array::from_fn(|i| u8::try_from(i * 7).unwrap()));
        assert_eq!(parse_device_id(&id.to_string()), Ok(id));
        assert_eq!(parse_device_id(&id.to_string().to_uppercase()), Ok(id));
        let text = id.to_string();
        for wrong in ["", "00", &text[1..], &format!("{text}00"), &text.replace('0', "g"), &format!("{text} ")] {
            assert_eq!(parse_device_id(wrong), Err(NotADeviceId), "{wrong:?}");
        }
    }

    #[test]
    fn debugging_shows_no_key() {
        let dir = tempfile::tempdir().unwrap();
        let identity = Identity::open(dir.path()).unwrap();
        assert_eq!(format!("{identity:?}"), format!("Identity({:?})", identity.id()));
    }
}
