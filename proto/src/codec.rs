//! Bytes to messages and back: like tonic's own codec for protobuf, but a message that cannot be read is told apart
//! from a broken stream, and nothing is decoded that would take much more memory than its bytes.

use crate::MAX_BATCH_UPDATES;
use bytes::Buf;
use farshore_engine::PeerFault;
use prost::Message;
use std::error::Error;
use std::marker::PhantomData;
use std::sync::Arc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Code, Status};

/// The fault of bytes that are not the protobuf message that belongs there.
pub const UNREADABLE: PeerFault = PeerFault::Missing("a readable form");

/// Decodes one message.
///
/// # Errors
/// [`PeerFault::TooMany`] if it has more than [`MAX_BATCH_UPDATES`] fields, [`UNREADABLE`] if it cannot be read.
pub fn decode<T: Message + Default>(mut bytes: impl Buf) -> Result<T, PeerFault> {
    check_shape(bytes.chunk())?;
    T::decode(&mut bytes).map_err(|_| UNREADABLE)
}

/// The rule that the peer broke, if that is why a call failed. Only what was noticed on this side counts: a peer
/// cannot say it of itself.
#[must_use]
pub fn fault_of(status: &Status) -> Option<PeerFault> {
    if let Some(fault) = status.source().and_then(|source| source.downcast_ref::<PeerFault>()) {
        return Some(*fault);
    }
    // tonic's own words for a message whose announced length is above the limit.
    (status.code() == Code::OutOfRange).then_some(PeerFault::OutOfRange("message length"))
}

/// The status that carries `fault` to whoever called. See [`fault_of`].
#[must_use]
pub fn status_of(fault: PeerFault) -> Status {
    let mut status = Status::invalid_argument(fault.to_string());
    status.set_source(Arc::new(fault));
    status
}

/// Counts the fields at the top of a message before it is decoded: an update of no bytes takes two bytes on the wire
/// and a hundred times that in memory.
fn check_shape(mut bytes: &[u8]) -> Result<(), PeerFault> {
    for _ in 0..MAX_BATCH_UPDATES {
        if bytes.is_empty() {
            return Ok(());
        }
        let key = take_varint(&mut bytes)?;
        let skip = match key & 7 {
            0 => take_varint(&mut bytes).map(|_| 0)?,
            1 => 8,
            2 => usize::try_from(take_varint(&mut bytes)?).map_err(|_| UNREADABLE)?,
            5 => 4,
            _ => return Err(UNREADABLE),
        };
        bytes = bytes.get(skip..).ok_or(UNREADABLE)?;
    }
    if bytes.is_empty() { Ok(()) } else { Err(PeerFault::TooMany(MAX_BATCH_UPDATES)) }
}

fn take_varint(bytes: &mut &[u8]) -> Result<u64, PeerFault> {
    prost::encoding::decode_varint(bytes).map_err(|_| UNREADABLE)
}

/// The codec of the generated client and server.
pub struct StrictCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for StrictCodec<T, U> {
    fn default() -> StrictCodec<T, U> {
        StrictCodec(PhantomData)
    }
}

impl<T, U> Codec for StrictCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = StrictEncoder<T>;
    type Decoder = StrictDecoder<U>;

    fn encoder(&mut self) -> StrictEncoder<T> {
        StrictEncoder(PhantomData)
    }

    fn decoder(&mut self) -> StrictDecoder<U> {
        StrictDecoder(PhantomData)
    }
}

/// Writes messages.
pub struct StrictEncoder<T>(PhantomData<T>);

impl<T: Message> Encoder for StrictEncoder<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, item: T, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        item.encode(buffer).map_err(|error| Status::internal(error.to_string()))
    }
}

/// Reads messages; see [`decode`].
pub struct StrictDecoder<U>(PhantomData<U>);

impl<U: Message + Default> Decoder for StrictDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        decode(buffer).map(Some).map_err(status_of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1;

    #[test]
    fn bytes_that_are_no_message_are_a_fault() {
        for garbage in
            [&b"\xff"[..], b"\x0a\x05ab", b"\x0b", b"\x09\x01", b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"]
        {
            assert_eq!(decode::<v1::TreeBatch>(garbage), Err(UNREADABLE), "{garbage:x?}");
        }
        assert_eq!(decode::<v1::TreeBatch>(&b""[..]), Ok(v1::TreeBatch::default()));
    }

    #[test]
    fn fields_are_counted_before_they_are_decoded() {
        let batch = |updates| b"\x0a\x00".repeat(updates);
        assert_eq!(decode::<v1::TreeBatch>(&batch(1024)[..]).unwrap().updates.len(), 1024);
        assert_eq!(decode::<v1::TreeBatch>(&batch(1025)[..]), Err(PeerFault::TooMany(1024)));
    }

    #[test]
    fn faults_travel_through_a_status_and_are_not_believed_from_afar() {
        assert_eq!(fault_of(&status_of(PeerFault::WrongHash)), Some(PeerFault::WrongHash));
        assert_eq!(fault_of(&Status::invalid_argument(PeerFault::WrongHash.to_string())), None);
        assert_eq!(fault_of(&Status::out_of_range("x")), Some(PeerFault::OutOfRange("message length")));
    }
}
