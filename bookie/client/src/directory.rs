use esker_metadata_client::View;
use esker_net::Address;
use esker_types::BookieId;

/// Where bookies are reached at the moment. Asked before every dial, so that a bookie may move.
pub trait Directory: Send + Sync + 'static {
    /// None: metadata does not know the bookie (any more).
    fn address(&self, bookie: BookieId) -> Option<Address>;
}

impl Directory for View {
    fn address(&self, bookie: BookieId) -> Option<Address> {
        self.read(|state| state.bookie(bookie).and_then(|record| record.address.parse().ok()))
    }
}
