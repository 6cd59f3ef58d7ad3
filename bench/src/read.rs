//! Reading a partition whole.

use anyhow::{Context, Result, bail};
use esker_client::{Client, Reader, Start};

/// Hands every record from the log start to the high watermark seen now to `each`, as (offset, value).
pub async fn all(client: &Client, topic: &str, partition: u32, mut each: impl FnMut(i64, &[u8])) -> Result<()> {
    let mut reader = client.reader(topic, partition, Start::Earliest);
    open(&mut reader).await.with_context(|| format!("{topic}/{partition}"))?;
    reader.set_end(Some(reader.high_watermark()));
    while let Some(fetched) = reader.next().await {
        match fetched {
            Ok(fetched) => {
                for record in fetched.records()? {
                    let record = record?;
                    each(record.offset, record.value.as_deref().unwrap_or_default());
                }
            }
            Err(error) if error.retryable() => {}
            Err(error) => return Err(error).with_context(|| format!("{topic}/{partition}")),
        }
    }
    Ok(())
}

/// A cluster in trouble may take several tries.
async fn open(reader: &mut Reader) -> Result<()> {
    for _ in 0..5 {
        match reader.open().await {
            Ok(()) => return Ok(()),
            Err(error) if error.retryable() => {}
            Err(error) => bail!(error),
        }
    }
    Ok(reader.open().await?)
}
