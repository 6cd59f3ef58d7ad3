//! Who leads, as far as this process knows. A guess: whoever is asked wrongly says so.

use esker_net::Address;
use esker_types::error::ErrorInfo;
use parking_lot::Mutex;

pub(super) struct Leader {
    /// As configured; asked in turn while no leader is known.
    servers: Vec<Address>,
    guess: Mutex<Guess>,
}

#[derive(Default)]
struct Guess {
    known: Option<Address>,
    /// Next of `servers` to be asked.
    turn: usize,
}

impl Leader {
    pub fn new(servers: Vec<Address>) -> Self {
        Self { servers, guess: Mutex::default() }
    }

    pub fn known(&self) -> Option<Address> {
        self.guess.lock().known.clone()
    }

    /// Whom to ask now.
    pub fn target(&self) -> Address {
        let mut guess = self.guess.lock();
        match &guess.known {
            Some(leader) => leader.clone(),
            None => self.next(&mut guess),
        }
    }

    /// Any server, another one with every call: followers serve watches too.
    pub fn any(&self) -> Address {
        self.next(&mut self.guess.lock())
    }

    pub fn answered(&self, server: &Address) {
        let mut guess = self.guess.lock();
        if guess.known.as_ref() != Some(server) {
            tracing::debug!(%server, "metadata leader found");
            guess.known = Some(server.clone());
        }
    }

    /// `server` does not lead; it may have said who does.
    pub fn redirected(&self, server: &Address, info: &ErrorInfo) {
        let hint = info.owner.iter().flat_map(|owner| &owner.addresses).find_map(|text| text.parse::<Address>().ok());
        let mut guess = self.guess.lock();
        // Only the answer of whom we asked may unseat it: answers cross each other.
        if guess.known.is_none() || guess.known.as_ref() == Some(server) {
            guess.known = hint.filter(|hint| hint != server);
        }
    }

    /// `server` can't be reached or does not answer.
    pub fn silent(&self, server: &Address) {
        let mut guess = self.guess.lock();
        if guess.known.as_ref() == Some(server) {
            guess.known = None;
        }
    }

    fn next(&self, guess: &mut Guess) -> Address {
        let server = self.servers[guess.turn % self.servers.len()].clone();
        guess.turn = guess.turn.wrapping_add(1);
        server
    }
}

#[cfg(test)]
mod tests {
    use esker_types::ErrorCode;
    use esker_types::error::OwnerHint;

    use super::*;

    fn address(n: u16) -> Address {
        format!("127.0.0.1:{n}").parse().unwrap()
    }

    #[test]
    fn the_guess_follows_answers_hints_and_silence() {
        let leader = Leader::new(vec![address(1), address(2)]);
        assert_eq!((leader.target(), leader.target(), leader.target()), (address(1), address(2), address(1)));
        leader.answered(&address(2));
        assert_eq!(leader.target(), address(2));
        let mut info = ErrorInfo::new(ErrorCode::NotLeader, "not me");
        leader.redirected(&address(1), &info);
        assert_eq!(leader.target(), address(2), "an old answer of somebody else");
        info.owner = Some(OwnerHint {
            addresses: vec!["nonsense".to_owned(), "127.0.0.1:3".to_owned()],
            ..OwnerHint::default()
        });
        leader.redirected(&address(2), &info);
        assert_eq!(leader.target(), address(3));
        leader.silent(&address(3));
        assert_eq!(leader.known(), None);
    }
}
