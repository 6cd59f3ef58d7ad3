//! The superblock: one small file beside the journal that tells whose directory this is (the cookie, R11) and how far
//! the journal is known to be durable, should the journal's own tail be lost.

use esker_types::{BookieId, ClusterId, InstanceId, checksum};
use prost::Message;

use super::Lsn;

pub const SUPERBLOCK_MAGIC: u32 = 0x534b_5345; // "ESKS" on disk
pub const SUPERBLOCK_VERSION: u32 = 1;
/// Fixed size on disk: replaced as a whole (new file, fsync, rename, fsync of the directory).
pub const SUPERBLOCK_LEN: usize = 4096;

/// Replaced at every start of a journal file, before that file takes ADDs, when the journal fails, and at a clean stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Superblock {
    pub cluster: ClusterId,
    pub bookie: BookieId,
    pub instance: InstanceId,
    /// Uuid of this very directory: tells a swapped or copied disk from its original.
    pub directory: [u8; 16],
    /// Everything below is durable. May lag, never leads.
    pub durable: Lsn,
    /// A write or fsync failed: nothing that was not proven durable before may be trusted.
    pub poisoned: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SuperblockError {
    #[error("the superblock is damaged: restore it from the disk's backup or start with --new-instance")]
    Damaged,
    #[error("superblock version {0} is newer than this program knows: start the newer version")]
    Newer(u32),
}

#[derive(Clone, PartialEq, prost::Message)]
struct SuperblockMessage {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(bytes = "vec", tag = "2")]
    cluster: Vec<u8>,
    #[prost(uint64, tag = "3")]
    bookie: u64,
    #[prost(bytes = "vec", tag = "4")]
    instance: Vec<u8>,
    #[prost(bytes = "vec", tag = "5")]
    directory: Vec<u8>,
    #[prost(uint64, tag = "6")]
    durable: u64,
    #[prost(bool, tag = "7")]
    poisoned: bool,
}

impl Superblock {
    /// {magic u32, length u32, message, zeros, CRC-32C of all before u32}.
    pub fn encode(&self) -> [u8; SUPERBLOCK_LEN] {
        let message = SuperblockMessage {
            version: SUPERBLOCK_VERSION,
            cluster: self.cluster.0.to_vec(),
            bookie: self.bookie.0,
            instance: self.instance.0.to_vec(),
            directory: self.directory.to_vec(),
            durable: self.durable.0,
            poisoned: self.poisoned,
        }
        .encode_to_vec();
        let mut out = [0u8; SUPERBLOCK_LEN];
        out[..4].copy_from_slice(&SUPERBLOCK_MAGIC.to_le_bytes());
        out[4..8].copy_from_slice(&(message.len() as u32).to_le_bytes());
        out[8..8 + message.len()].copy_from_slice(&message);
        let crc = checksum::crc32c(&out[..SUPERBLOCK_LEN - 4]);
        out[SUPERBLOCK_LEN - 4..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, SuperblockError> {
        let damaged = || SuperblockError::Damaged;
        let raw: &[u8; SUPERBLOCK_LEN] = bytes.try_into().map_err(|_| damaged())?;
        let word = |at: usize| u32::from_le_bytes([raw[at], raw[at + 1], raw[at + 2], raw[at + 3]]);
        let sound =
            word(0) == SUPERBLOCK_MAGIC && word(SUPERBLOCK_LEN - 4) == checksum::crc32c(&raw[..SUPERBLOCK_LEN - 4]);
        if !sound {
            return Err(damaged());
        }
        let message = raw[8..SUPERBLOCK_LEN - 4].get(..word(4) as usize).ok_or_else(damaged)?;
        let message = SuperblockMessage::decode(message).map_err(|_| damaged())?;
        if message.version != SUPERBLOCK_VERSION {
            return Err(SuperblockError::Newer(message.version));
        }
        Ok(Self {
            cluster: ClusterId::from_slice(&message.cluster).ok_or_else(damaged)?,
            bookie: BookieId(message.bookie),
            instance: InstanceId::from_slice(&message.instance).ok_or_else(damaged)?,
            directory: message.directory.as_slice().try_into().map_err(|_| damaged())?,
            durable: Lsn(message.durable),
            poisoned: message.poisoned,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_and_sees_every_flipped_bit() {
        let block = Superblock {
            cluster: ClusterId([1; 16]),
            bookie: BookieId(2),
            instance: InstanceId([3; 16]),
            directory: [4; 16],
            durable: Lsn(5),
            poisoned: true,
        };
        let bytes = block.encode();
        let golden = "45534b533e000000080112100101010101010101010101010101010118022210030303030303030303030303030303032a1004040404040404040404040404040404300538010000";
        let hex: String = bytes[..72].iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, golden, "the format is frozen");
        assert_eq!(Superblock::decode(&bytes), Ok(block));
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Superblock::decode(&bad).is_err(), "bit {bit}");
        }
        for cut in [0, 1, SUPERBLOCK_LEN - 1] {
            assert_eq!(Superblock::decode(&bytes[..cut]), Err(SuperblockError::Damaged));
        }
    }
}
