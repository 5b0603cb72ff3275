//! Extended attributes on the wire. They are three fields whatever their number: as a message of its own an empty one would take
//! two bytes there, and many times that once it is read.

use crate::v1;
use farshore_engine::record::RecordError;
use farshore_engine::xattrs::XATTRS_MAX_BYTES;
use farshore_engine::{PeerFault, Xattrs};

/// # Errors
/// Fields that do not fit each other, or more than there may be. The other limits are [`Xattrs::check`]'s.
pub(crate) fn parse(xattrs: v1::Xattrs) -> Result<Xattrs, PeerFault> {
    let v1::Xattrs { names, value_bytes, values } = xattrs;
    // Before it is copied.
    if names.len() + values.len() > XATTRS_MAX_BYTES {
        return Err(RecordError::Xattrs.into());
    }
    let fault = PeerFault::OutOfRange("extended attributes");
    let names = names.strip_suffix(&[0]).ok_or(fault)?.split(|byte| *byte == 0);
    if names.clone().count() != value_bytes.len() || !names.clone().is_sorted_by(|one, next| one < next) {
        return Err(fault);
    }
    let mut rest = &values[..];
    let all = names.zip(value_bytes).map(|(name, len)| {
        let (value, behind) = rest.split_at_checked(len as usize).ok_or(fault)?;
        rest = behind;
        Ok((name, value))
    });
    let all: Xattrs = all.collect::<Result<Vec<_>, PeerFault>>()?.into_iter().collect();
    if rest.is_empty() { Ok(all) } else { Err(fault) }
}

/// `None` if there is none.
pub(crate) fn encode(xattrs: &Xattrs) -> Option<v1::Xattrs> {
    (!xattrs.is_empty()).then(|| v1::Xattrs {
        names: xattrs.list().into(),
        // A value has at most 2^16 bytes.
        value_bytes: xattrs.iter().map(|(_, value)| value.len() as u32).collect(),
        values: xattrs.iter().flat_map(|(_, value)| value).copied().collect::<Vec<u8>>().into(),
    })
}
