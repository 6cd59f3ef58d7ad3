//! The local copy and its news.

use std::sync::Arc;

use esker_metadata_client::{MemoryStore, MetadataStore, News, NewsEvent, View, WatchEvent, conformance};
use esker_metadata_core::{Change, State};
use tokio_util::sync::CancellationToken;

async fn delta(news: &mut News) -> Arc<esker_metadata_core::Delta> {
    match news.next().await {
        Some(NewsEvent::Delta(delta)) => delta,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn news_tell_what_changed_once_the_view_shows_it() {
    let store = MemoryStore::new();
    let as_dyn: Arc<dyn MetadataStore> = Arc::new(store.clone());
    conformance::run(as_dyn.clone()).await;
    let cancel = CancellationToken::new();
    let view = View::follow(&*as_dyn, cancel.clone());
    view.ready().await;
    let mut news = view.news();
    let proposed = store.apply(vec![conformance::topic(99, "new").into()]);
    let delta = delta(&mut news).await;
    assert_eq!(delta.revision, proposed.revision);
    assert!(view.revision() >= delta.revision && view.read(|state| state.topic_by_name("new").is_some()));
    assert!(delta.changes.iter().any(|change| matches!(change, Change::Topic(topic) if topic.name == "new")));
    cancel.cancel();
}

#[tokio::test]
async fn whoever_falls_behind_is_told_to_look_at_everything() {
    let source = MemoryStore::new();
    let view = View::detached(State::default());
    let mut news = view.news();
    for _ in 0..5_000 {
        let mut state = view.read(State::clone);
        let applied = state.apply::<esker_types::AllRules>(0, &[]);
        assert!(view.apply(WatchEvent::Delta(Arc::new(applied.delta))));
    }
    assert!(matches!(news.next().await, Some(NewsEvent::Reset)));
    // A watcher that slept through more than the store keeps gets a snapshot instead, never a gap.
    let mut watch = source.watch();
    (0..5_000).for_each(|_| drop(source.apply(vec![])));
    let mut copy = State::default();
    let mut snapshots = 0;
    while copy.revision() < 5_000 {
        match watch.next().await.unwrap() {
            WatchEvent::Snapshot(state) => {
                snapshots += 1;
                copy = State::clone(&state);
            }
            WatchEvent::Delta(delta) => copy.replay(&delta).unwrap(),
        }
    }
    assert!(snapshots >= 2);
}

#[test]
fn a_delta_with_a_gap_changes_nothing() {
    let view = View::detached(State::default());
    let mut ahead = State::default();
    ahead.apply::<esker_types::AllRules>(0, &[]);
    let applied = ahead.apply::<esker_types::AllRules>(0, &[]);
    assert!(!view.apply(WatchEvent::Delta(Arc::new(applied.delta))));
    assert_eq!(view.revision(), 0);
}
