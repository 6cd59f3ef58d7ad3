//! The five compressions of record batches. Decompression never makes more output than it is allowed.

use std::io::{self, Read, Write};
use std::str::FromStr;

use bytes::Bytes;

use super::error::BatchError;

/// How the records of a batch are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Compression {
    #[default]
    None,
    Gzip,
    /// Blocks of 32 KiB in xerial's framing, as the Java client writes it.
    Snappy,
    /// LZ4 frames of independent 64 KiB blocks, the only ones that the Java client reads.
    Lz4,
    Zstd,
}

/// What decompression may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeLimits {
    /// Largest output of one batch.
    pub bytes_max: usize,
}

impl Default for DecodeLimits {
    /// 128 MiB: far above what producers put into one batch, far below what hurts a client.
    fn default() -> Self {
        Self { bytes_max: 128 << 20 }
    }
}

/// Level that is fast enough for a producer's own thread.
const ZSTD_LEVEL: i32 = 3;
/// Largest window that zstd's own tools accept unasked; it is allocated only as far as data fills it.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;
const XERIAL_MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
/// Magic, then version and lowest compatible version, both 1.
const XERIAL_HEADER: [u8; 16] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0, 0, 0, 0, 1, 0, 0, 0, 1];
const XERIAL_BLOCK: usize = 32 << 10;

impl Compression {
    pub const ALL: [Compression; 5] = [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];

    pub(super) fn from_bits(bits: u8) -> Result<Self, BatchError> {
        Self::ALL.get(usize::from(bits)).copied().ok_or(BatchError::UnknownCompression(bits))
    }

    /// The low three bits of a batch's attributes.
    pub(super) fn bits(self) -> i16 {
        self as i16
    }

    pub fn is_none(self) -> bool {
        self == Self::None
    }

    /// As in Kafka's `compression.type`.
    pub fn name(self) -> &'static str {
        ["none", "gzip", "snappy", "lz4", "zstd"][self as usize]
    }

    pub(super) fn compress(self, from: &[u8]) -> io::Result<Vec<u8>> {
        let out = Vec::with_capacity(from.len() / 2 + 64);
        match self {
            Self::None => Ok(from.to_vec()),
            Self::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(out, flate2::Compression::default());
                encoder.write_all(from)?;
                encoder.finish()
            }
            Self::Snappy => compress_xerial(from, out),
            Self::Lz4 => {
                let frame = lz4_flex::frame::FrameInfo::new()
                    .block_mode(lz4_flex::frame::BlockMode::Independent)
                    .block_size(lz4_flex::frame::BlockSize::Max64KB);
                let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(frame, out);
                encoder.write_all(from)?;
                encoder.finish().map_err(io::Error::other)
            }
            Self::Zstd => zstd::bulk::compress(from, ZSTD_LEVEL),
        }
    }

    pub(super) fn decompress(self, from: Bytes, limits: DecodeLimits) -> Result<Bytes, BatchError> {
        let too_large = BatchError::DecompressedTooLarge { compression: self, from: from.len(), max: limits.bytes_max };
        let out = match self {
            Self::None => return Ok(from),
            Self::Gzip => read_capped(flate2::read::MultiGzDecoder::new(&from[..]), &from, limits),
            Self::Snappy => return decompress_snappy(&from, limits, too_large),
            Self::Lz4 => read_capped(lz4_flex::frame::FrameDecoder::new(&from[..]), &from, limits),
            Self::Zstd => zstd::stream::read::Decoder::with_buffer(&from[..]).and_then(|mut decoder| {
                decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
                read_capped(decoder, &from, limits)
            }),
        };
        match out {
            Err(_) => Err(BatchError::Decompress(self)),
            Ok(out) if out.len() > limits.bytes_max => Err(too_large),
            Ok(out) => Ok(out.into()),
        }
    }
}

impl FromStr for Compression {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|c| c.name() == text)
            .ok_or_else(|| format!("unknown compression {text:?}: use none, gzip, snappy, lz4 or zstd"))
    }
}

/// Reads at most one byte more than allowed, so that the caller sees the excess without paying for it.
fn read_capped(decoder: impl Read, from: &[u8], limits: DecodeLimits) -> io::Result<Vec<u8>> {
    let guess = from.len().saturating_mul(3).min(limits.bytes_max);
    let mut out = Vec::with_capacity(guess);
    decoder.take(limits.bytes_max as u64 + 1).read_to_end(&mut out)?;
    Ok(out)
}

fn compress_xerial(from: &[u8], mut out: Vec<u8>) -> io::Result<Vec<u8>> {
    out.extend_from_slice(&XERIAL_HEADER);
    let mut encoder = snap::raw::Encoder::new();
    for block in from.chunks(XERIAL_BLOCK) {
        let at = out.len();
        out.resize(at + 4 + snap::raw::max_compress_len(block.len()), 0);
        let len = encoder.compress(block, &mut out[at + 4..]).map_err(io::Error::other)?;
        out[at..at + 4].copy_from_slice(&(len as u32).to_be_bytes());
        out.truncate(at + 4 + len);
    }
    Ok(out)
}

/// Xerial's framing, or one bare block as some clients send.
fn decompress_snappy(from: &[u8], limits: DecodeLimits, too_large: BatchError) -> Result<Bytes, BatchError> {
    let bad = || BatchError::Decompress(Compression::Snappy);
    let mut out = Vec::new();
    if !from.starts_with(&XERIAL_MAGIC) {
        snappy_block(from, &mut out, limits, &too_large)?;
        return Ok(out.into());
    }
    let mut rest = from.get(XERIAL_HEADER.len()..).ok_or_else(bad)?;
    while !rest.is_empty() {
        let (len, tail) = rest.split_first_chunk::<4>().ok_or_else(bad)?;
        let len = u32::from_be_bytes(*len) as usize;
        let block = tail.get(..len).ok_or_else(bad)?;
        snappy_block(block, &mut out, limits, &too_large)?;
        rest = &tail[len..];
    }
    Ok(out.into())
}

/// Appends one decompressed block. Its length stands in front of it and is checked before anything is allocated.
fn snappy_block(
    block: &[u8],
    out: &mut Vec<u8>,
    limits: DecodeLimits,
    too_large: &BatchError,
) -> Result<(), BatchError> {
    let bad = |_| BatchError::Decompress(Compression::Snappy);
    let len = snap::raw::decompress_len(block).map_err(bad)?;
    let at = out.len();
    if len > limits.bytes_max.saturating_sub(at) {
        return Err(too_large.clone());
    }
    // A byte of snappy input makes at most 64 bytes of output per 3-byte copy: a longer claim is a lie.
    if len > block.len().saturating_mul(64) {
        return Err(BatchError::Decompress(Compression::Snappy));
    }
    out.resize(at + len, 0);
    snap::raw::Decoder::new().decompress(block, &mut out[at..]).map_err(bad)?;
    Ok(())
}
