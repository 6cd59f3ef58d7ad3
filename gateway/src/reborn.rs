//! A cluster that was rebuilt from its bucket has other epochs, segments and offsets under the same names: a process that
//! knew the former one must not go on.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::gateway::Gateway;

/// Ends the process, by the gateway's fault, when metadata becomes that of another incarnation.
pub async fn watch(gateway: Arc<Gateway>, cancel: CancellationToken) {
    let mut first = None;
    loop {
        let seen = gateway.view.revision();
        let now = gateway.view.read(|state| state.cluster().map(|cluster| cluster.incarnation));
        if let Some(former) = other(&mut first, now) {
            let reason =
                format!("the cluster was rebuilt, it is no longer incarnation {former}: start again to join it");
            gateway.fault.send_replace(Some(reason));
            return;
        }
        if cancel.run_until_cancelled(gateway.view.changed(seen)).await.is_none() {
            return;
        }
    }
}

/// The incarnation that was seen first, if there is another one now. A view that is being filled has none.
fn other(first: &mut Option<u8>, now: Option<u8>) -> Option<u8> {
    let now = now?;
    let first = *first.get_or_insert(now);
    (now != first).then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_another_incarnation_ends_the_process() {
        let mut first = None;
        let seen = [None, Some(1), None, Some(1), Some(2)].map(|now| other(&mut first, now));
        assert_eq!(seen, [None, None, None, None, Some(1)]);
    }
}
