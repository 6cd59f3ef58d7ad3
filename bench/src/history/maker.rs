use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Result;
use bytes::BytesMut;
use esker_cache::testing::{MadeSegment, segment_of};
use esker_cache::{Class, For, Store};
use esker_cache_core::manifest::{Edit, Grave, LeafEntry, Need, Page, PageNames, PageRef, edit};
use esker_cache_core::object::{Encoder, EncoderOptions, Identity, Part};
use esker_metadata_core::{Close, DropBookieCopies, NextSegment, OffloadCommit, Open, Roll, SetRoot};
use esker_types::{ObjectKey, PageKey};
use esker_wire::batch::{BatchBuilder, Compression};

use super::commands::{Commands, QUORUM};
use super::lookups::{self, RECORDS};

/// Does what an owner and its offload do, for segments of one batch each.
pub(super) struct Maker<'a> {
    commands: &'a Commands,
    store: Store,
    reader: esker_cache::Reader,
    root: Option<esker_metadata_core::RootPlace>,
    names: PageNames,
    /// Of the version before the current one: nobody reads them any more.
    graves: Vec<Grave>,
    closed: u64,
}

impl<'a> Maker<'a> {
    pub async fn new(url: &str, commands: &'a Commands) -> Result<Self> {
        let (store, reader) = lookups::open(url, commands.cluster).await?;
        let Commands { cluster, incarnation, partition, epoch, .. } = *commands;
        let names = PageNames { cluster, incarnation, partition, epoch, next_seq: 1 };
        Ok(Self { commands, store, reader, root: None, names, graves: Vec::new(), closed: 0 })
    }

    /// Segments so far.
    pub fn closed(&self) -> u64 {
        self.closed
    }

    /// `count` more segments, from open to folded.
    pub async fn grow(&mut self, count: u64) -> Result<()> {
        let Commands { partition, epoch, .. } = *self.commands;
        if self.closed == 0 {
            let open = Open { partition, epoch, prev: None, next: self.next(1) };
            self.commands.apply(vec![open.into()]).await?;
        }
        let made: Vec<MadeSegment> = (self.closed + 1..=self.closed + count).map(|n| self.segment(n)).collect();
        self.commands.apply(made.iter().map(|made| self.roll(made).into()).collect()).await?;
        let entries = self.write(&made).await?;
        let commit = |entry: &LeafEntry| {
            let LeafEntry { n, digest, end_offset, place, .. } = entry.clone();
            OffloadCommit { partition, epoch, n, digest, end_offset, place }.into()
        };
        self.commands.apply(entries.iter().map(commit).collect()).await?;
        let last = self.closed + count;
        self.fold(entries, last).await?;
        self.commands.apply(vec![DropBookieCopies { partition, epoch, upto_n: last }.into()]).await?;
        self.closed = last;
        Ok(())
    }

    fn next(&self, n: u64) -> NextSegment {
        NextSegment { n, quorum: QUORUM, members: vec![self.commands.member] }
    }

    /// One record batch whose times and values are its offsets.
    fn segment(&self, n: u64) -> MadeSegment {
        let base_offset = (n as i64 - 1) * RECORDS;
        let batch = |base: i64| {
            let mut builder = BatchBuilder::new(Compression::None, 512);
            for offset in base..base + RECORDS {
                builder.push(offset, None, Some(&offset.to_be_bytes()[..]), &[]);
            }
            let mut out = BytesMut::new();
            builder.build(None).copy_assigned(&mut out, base, self.commands.epoch.0.cast_signed());
            out.to_vec()
        };
        segment_of(self.commands.partition.0, n, base_offset, 1, |_, base| batch(base))
    }

    fn roll(&self, made: &MadeSegment) -> Roll {
        let facts = &made.facts;
        let close = Close {
            n: facts.segment.n,
            last: Some(facts.last),
            end_offset: facts.end_offset,
            digest: facts.digest,
            bytes: facts.bytes,
            first_ts: facts.first_ts,
            max_ts: facts.max_ts,
            holders: vec![self.commands.member],
        };
        let Commands { partition, epoch, .. } = *self.commands;
        Roll { partition, epoch, close, next: Some(self.next(facts.segment.n + 1)) }
    }

    /// One shared object for all of them.
    async fn write(&self, made: &[MadeSegment]) -> Result<Vec<LeafEntry>> {
        let Commands { cluster, incarnation, partition, epoch, .. } = *self.commands;
        let (n, shared) = (made[0].facts.segment.n, made.len() > 1);
        let key = ObjectKey { incarnation, partition, n, epoch, attempt: 1, shared };
        let mut encoder = Encoder::new(Identity { cluster, key }, EncoderOptions::default());
        let mut upload = self.store.upload(&key.to_string(), Class::Offload)?;
        for segment in made {
            encoder.begin(segment.facts)?;
            for entry in &segment.entries {
                encoder.push(entry)?;
            }
            encoder.end()?;
        }
        let finished = encoder.finish();
        while let Some(piece) = encoder.take() {
            upload.write(piece).await?;
        }
        let size = upload.finish().await?;
        let entry = |(part, made): (&Part, &MadeSegment)| LeafEntry::new(&made.facts, part.place(key, size));
        Ok(finished.parts.iter().zip(made).map(entry).collect())
    }

    /// The manifest's next version: pages, root last, then the pointer.
    async fn fold(&mut self, append: Vec<LeafEntry>, folded_to: u64) -> Result<()> {
        let emptied = std::mem::take(&mut self.graves);
        let change = Edit { append, folded_to, emptied, ..Edit::default() };
        let mut at_hand: BTreeMap<PageKey, Arc<Page>> = BTreeMap::new();
        let edited = loop {
            let pages = |of: &PageRef| at_hand.get(&of.key).cloned();
            match edit(self.root.as_ref(), &change, &mut self.names, &pages) {
                Ok(edited) => break edited,
                Err(Need(of)) => {
                    let page = self.reader.page(&of, For::Scan).await?;
                    at_hand.insert(of.key, page);
                }
            }
        };
        for (key, bytes, _) in &edited.pages {
            self.store.put(&key.to_string(), bytes.clone(), Class::Offload).await?;
        }
        if let Some((_, _, page)) = edited.pages.last()
            && let Page::Root(root) = &**page
        {
            self.graves = root.graveyard.clone();
        }
        let Commands { partition, epoch, .. } = *self.commands;
        let expect_ver = self.root.as_ref().map_or(0, |root| root.ver);
        let set = SetRoot { partition, epoch, expect_ver, root: edited.root.clone(), log_start: None };
        self.commands.apply(vec![set.into()]).await?;
        self.root = Some(edited.root);
        Ok(())
    }
}
