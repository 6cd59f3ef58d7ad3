//! Changes to a batch where it lies. The CRC of a changed header is derived from the old one: CRC-32C is linear,
//! so the records, however many, are not read again.

use esker_types::{Offset, checksum};

use super::builder::ProducerStamp;
use super::header::{
    AT_ATTRIBUTES, AT_CRC, AT_EPOCH, AT_MAX_TS, AT_PRODUCER, AT_PRODUCER_EPOCH, AT_SEQUENCE, BATCH_HEADER_LEN,
    LOG_APPEND_TIME,
};

pub(super) fn assign(batch: &mut [u8], base_offset: Offset, leader_epoch: i32) {
    put(batch, 0, &base_offset.to_be_bytes());
    put(batch, AT_EPOCH, &leader_epoch.to_be_bytes());
}

pub(super) fn stamp_append_time(batch: &mut [u8], now_ms: i64) {
    edit_summed(batch, |batch| {
        let attributes = i16::from_be_bytes([batch[AT_ATTRIBUTES], batch[AT_ATTRIBUTES + 1]]) | LOG_APPEND_TIME;
        put(batch, AT_ATTRIBUTES, &attributes.to_be_bytes());
        put(batch, AT_MAX_TS, &now_ms.to_be_bytes());
    });
}

pub(super) fn set_producer(batch: &mut [u8], stamp: ProducerStamp) {
    edit_summed(batch, |batch| {
        put(batch, AT_PRODUCER, &stamp.id.to_be_bytes());
        put(batch, AT_PRODUCER_EPOCH, &stamp.epoch.to_be_bytes());
        put(batch, AT_SEQUENCE, &stamp.base_sequence.to_be_bytes());
    });
}

/// Changes header fields under the CRC and corrects it.
fn edit_summed(batch: &mut [u8], change: impl FnOnce(&mut [u8])) {
    let records = (batch.len() - BATCH_HEADER_LEN) as u64;
    // crc(header || records) = shift(crc(header), |records|) ^ crc(records), and combining with 0 is that shift.
    let shifted = |batch: &[u8]| {
        let header = checksum::crc32c(&batch[AT_ATTRIBUTES..BATCH_HEADER_LEN]);
        checksum::crc32c_combine(header, 0, records)
    };
    let old = u32::from_be_bytes([batch[AT_CRC], batch[AT_CRC + 1], batch[AT_CRC + 2], batch[AT_CRC + 3]]);
    let before = shifted(batch);
    change(batch);
    let crc = old ^ before ^ shifted(batch);
    put(batch, AT_CRC, &crc.to_be_bytes());
}

fn put(batch: &mut [u8], at: usize, value: &[u8]) {
    batch[at..at + value.len()].copy_from_slice(value);
}
