//! Bounds: a full queue makes the sender wait, and an ordered handler makes the peer wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use esker_net::{BoxFuture, ConnectionCtx, NetStats, Service, TrySendError, serve};
use esker_types::{ByteCount, Frame, Role};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::fixture::{ALL, ECHO, Transport, World, frame};

#[tokio::test]
async fn a_full_queue_refuses_and_frees_again() {
    for transport in ALL {
        let world = World::with(transport, |config| config.queue_bytes = ByteCount::kib(64));
        let mut listener = world.listener().await;
        let address = listener.local_address().clone();
        let (dialed, accepted) = tokio::join!(world.gateway.connect(&address, Role::Bookie), listener.accept());
        let (dialed, mut accepted) = (dialed.expect("link"), accepted.expect("link"));
        let mut queued = 0usize;
        // Nobody reads: sockets and queues fill up, and then there is no room.
        let stuck = loop {
            match dialed.tx.try_send(frame(ECHO, vec![0; 30_000])) {
                Ok(()) => queued += 1,
                Err(TrySendError::Full(frame)) => {
                    // The writer may just be busy: it is stuck only if a while later there is still no room.
                    let later = std::time::Duration::from_millis(100);
                    match tokio::time::timeout(later, dialed.tx.send(frame.clone())).await {
                        Ok(sent) => sent.map(|()| queued += 1).expect("open"),
                        Err(_) => break frame,
                    }
                }
                Err(other) => panic!("{transport:?}: {other}"),
            }
            assert!(queued < 10_000, "{transport:?}: no bound");
        };
        let waiting = tokio::spawn({
            let tx = dialed.tx.clone();
            async move { tx.send(stuck).await }
        });
        for _ in 0..=queued {
            accepted.rx.recv().await.expect("a frame");
        }
        waiting.await.expect("task").expect("sent once there was room");
        assert!(NetStats::read(&world.gateway.stats().send_waits) > 0);
    }
}

#[tokio::test]
async fn many_small_frames_share_writes() {
    let world = World::new(Transport::Tcp);
    let mut listener = world.listener().await;
    let address = listener.local_address().clone();
    let (dialed, accepted) = tokio::join!(world.gateway.connect(&address, Role::Bookie), listener.accept());
    let (dialed, mut accepted) = (dialed.expect("link"), accepted.expect("link"));
    // One thread: all frames are queued before the writer runs.
    for _ in 0..1000 {
        dialed.tx.try_send(frame(ECHO, vec![0; 100])).expect("room");
    }
    for _ in 0..1000 {
        accepted.rx.recv().await.expect("a frame");
    }
    let writes = NetStats::read(&world.gateway.stats().writes);
    assert!(writes <= 10, "{writes} writes for 1,000 frames");
}

/// Handles frames in order, each only when a permit is there.
struct Gated {
    gate: Semaphore,
    started: AtomicUsize,
    done: Mutex<Vec<u64>>,
    progress: tokio::sync::Notify,
}

impl Service for Gated {
    fn handle<'a>(&'a self, _ctx: &'a ConnectionCtx, frame: Frame) -> BoxFuture<'a, Option<Frame>> {
        Box::pin(async move {
            self.started.fetch_add(1, Ordering::SeqCst);
            self.progress.notify_one();
            self.gate.acquire().await.ok()?.forget();
            self.done.lock().push(frame.request_id);
            Some(frame.answer(&()))
        })
    }

    fn in_order(&self, _opcode: u16) -> bool {
        true
    }
}

#[tokio::test]
async fn an_ordered_handler_stops_the_reading() {
    for transport in ALL {
        let world = World::new(transport);
        let listener = world.listener().await;
        let address = listener.local_address().clone();
        let service = Arc::new(Gated {
            gate: Semaphore::new(0),
            started: AtomicUsize::new(0),
            done: Mutex::default(),
            progress: tokio::sync::Notify::new(),
        });
        let cancel = CancellationToken::new();
        let server = tokio::spawn(serve(listener, service.clone(), cancel.clone()));
        let mut link = world.gateway.connect(&address, Role::Bookie).await.expect("link");
        for id in 1..=100 {
            link.tx.send(Frame::new(ECHO, id, &())).await.expect("open");
        }
        service.progress.notified().await;
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert_eq!(service.started.load(Ordering::SeqCst), 1, "{transport:?}");
        service.gate.add_permits(1000);
        for id in 1..=100 {
            assert_eq!(link.rx.recv().await.expect("answer").request_id, id);
        }
        assert!(service.done.lock().is_sorted());
        cancel.cancel();
        server.await.expect("stopped");
    }
}
