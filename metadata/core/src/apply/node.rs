//! Nodes and their sessions.

use std::sync::Arc;

use esker_types::{BookieId, BootId, ErrorCode, GatewayId, InstanceId, SessionId};

use super::{TOPIC_NAME_MAX, Tx};
use crate::change::{Change, SessionKey};
use crate::command::{
    DrainBookie, DrainGateway, ExpireSession, LoseBookie, OpenSession, RegisterBookie, RegisterGateway, ReportBookie,
};
use crate::records::{BookieRecord, BookieState, GatewayRecord, NodeRef, SessionRecord};
use crate::reply::{BookieReply, CommandResult, GatewayReply, Reject, Reply, SessionReply};

impl Tx<'_> {
    pub(super) fn register_gateway(&mut self, c: &RegisterGateway) -> CommandResult {
        check_node(&c.name, c.boot)?;
        self.check_version(&c.name, c.version)?;
        let known = self.state.gateway_by_name(&c.name).cloned();
        let same_boot = known.as_ref().is_some_and(|g| g.boot == c.boot);
        let live = known.as_ref().and_then(|g| g.session);
        if live.is_some() && !same_boot {
            let reason = format!("gateway {:?} is served by another process whose session has not ended yet", c.name);
            return Err(Reject::new(ErrorCode::NameInUse, reason));
        }
        let id = match &known {
            Some(gateway) => gateway.id,
            None => GatewayId(self.take_ids(|cluster| &mut cluster.next_gateway, 1)?),
        };
        let session = match live {
            Some(session) => session,
            None => self.new_session(NodeRef::Gateway(id), c.boot)?,
        };
        self.put(Arc::new(GatewayRecord {
            id,
            name: c.name.clone(),
            boot: c.boot,
            session: Some(session),
            addresses: c.addresses.clone(),
            zone: c.zone.clone(),
            // A drain is for one life: who starts the process again wants it to work.
            draining: same_boot && known.is_some_and(|g| g.draining),
            version: c.version,
        }));
        Ok(Reply::Gateway(GatewayReply { gateway: id, session }))
    }

    pub(super) fn register_bookie(&mut self, c: &RegisterBookie) -> CommandResult {
        check_node(&c.name, c.boot)?;
        self.check_version(&c.name, c.version)?;
        if c.instance.is_nil() {
            return Err(Reject::new(ErrorCode::InvalidRequest, "a bookie needs an instance id"));
        }
        let known = self.state.bookie_by_name(&c.name).cloned();
        self.check_instance(c, known.as_deref())?;
        let same = known.as_deref().filter(|b| b.instance == c.instance);
        let again = same.is_some_and(|b| b.boot == c.boot);
        let boot_no = same.map_or(0, |b| b.boot_no);
        if !again && c.expect_boot_no != boot_no {
            let reason = format!(
                "bookie {:?} was booted {boot_no} times, this process expected {}: another process uses a copy of its data",
                c.name, c.expect_boot_no
            );
            return Err(Reject::precondition(reason));
        }
        let id = match &known {
            Some(bookie) => bookie.id,
            None => BookieId(self.take_ids(|cluster| &mut cluster.next_bookie, 1)?),
        };
        let session = match known.as_deref().and_then(|b| b.session) {
            Some(session) if again => session,
            old => {
                old.into_iter().for_each(|session| self.put(Change::SessionGone(SessionKey { id: session })));
                self.new_session(NodeRef::Bookie(id), c.boot)?
            }
        };
        let mut retired = known.as_ref().map(|b| b.retired.clone()).unwrap_or_default();
        retired.extend(known.as_ref().map(|b| b.instance).filter(|old| *old != c.instance && !old.is_nil()));
        let state = match same.map(|b| b.state) {
            Some(BookieState::Draining) => BookieState::Draining,
            Some(BookieState::ReadOnly) if again => BookieState::ReadOnly,
            _ => BookieState::Live,
        };
        let boot_no = if again { boot_no } else { boot_no + 1 };
        self.put(Arc::new(BookieRecord {
            id,
            name: c.name.clone(),
            instance: c.instance,
            address: c.address.clone(),
            zone: c.zone.clone(),
            boot_no,
            boot: c.boot,
            durable_lsn: same.map_or(0, |b| b.durable_lsn).max(c.durable_lsn),
            state,
            session: Some(session),
            retired,
            version: c.version,
            disk_total: same.map_or(0, |b| b.disk_total),
            disk_used: same.map_or(0, |b| b.disk_used),
        }));
        Ok(Reply::Bookie(BookieReply { bookie: id, boot_no, session }))
    }

    /// R11: a name stands for one set of data; other data under it needs the operator's word, and an instance that was
    /// given up never comes back, under any name.
    fn check_instance(&self, c: &RegisterBookie, known: Option<&BookieRecord>) -> Result<(), Reject> {
        let refuse = |reason| Err(Reject::new(ErrorCode::WrongInstance, reason));
        let elsewhere = self
            .state
            .bookies()
            .find(|b| b.retired.contains(&c.instance) || (b.instance == c.instance && b.name != c.name));
        if let Some(other) = elsewhere {
            return refuse(format!("instance {} belongs or belonged to bookie {:?}", c.instance, other.name));
        }
        match known {
            Some(b) if b.instance == c.instance && b.state == BookieState::Lost => refuse(format!(
                "instance {} of bookie {:?} was declared lost: start it with --new-instance",
                c.instance, c.name
            )),
            // Nil: a restore gave up whatever data the name stood for.
            Some(b) if b.instance != c.instance && !b.instance.is_nil() && c.replaces != Some(b.instance) => {
                refuse(format!(
                    "bookie {:?} is registered with instance {}, not {}: if that data is gone for good start with --new-instance",
                    c.name, b.instance, c.instance
                ))
            }
            None if c.replaces.is_some() => refuse(format!("there is no bookie {:?} to replace", c.name)),
            _ => Ok(()),
        }
    }

    pub(super) fn report_bookie(&mut self, c: &ReportBookie) -> CommandResult {
        let mut bookie = self.bookie(c.bookie, c.instance)?;
        if bookie.boot_no != c.boot_no {
            let reason =
                format!("boot {} of bookie {:?} was followed by boot {}", c.boot_no, bookie.name, bookie.boot_no);
            return Err(Reject::new(ErrorCode::WrongInstance, reason));
        }
        bookie.durable_lsn = bookie.durable_lsn.max(c.durable_lsn);
        bookie.disk_total = c.disk_total;
        bookie.disk_used = c.disk_used;
        bookie.state = match (bookie.state, c.read_only) {
            (BookieState::Live, true) => BookieState::ReadOnly,
            (BookieState::ReadOnly, false) => BookieState::Live,
            (state, _) => state,
        };
        self.put(Arc::new(bookie));
        Ok(Reply::DONE)
    }

    pub(super) fn open_session(&mut self, c: &OpenSession) -> CommandResult {
        let (name, boot, live) = match c.node {
            NodeRef::Gateway(id) => self.gateway(id).map(|g| (g.name, g.boot, g.session))?,
            NodeRef::Bookie(id) => {
                let bookie = self.state.bookie(id).ok_or_else(|| unknown("bookie", id.0))?;
                if bookie.state == BookieState::Lost {
                    return Err(Reject::new(
                        ErrorCode::WrongInstance,
                        format!("bookie {:?} was declared lost", bookie.name),
                    ));
                }
                (bookie.name.clone(), bookie.boot, bookie.session)
            }
        };
        if boot != c.boot {
            let reason = format!("another process has registered as {name:?}");
            return Err(Reject::new(ErrorCode::NameInUse, reason));
        }
        let session = match live {
            Some(session) => session,
            None => self.new_session(c.node, c.boot)?,
        };
        self.set_session(c.node, Some(session));
        Ok(Reply::Session(SessionReply { session }))
    }

    pub(super) fn expire_session(&mut self, c: &ExpireSession) -> CommandResult {
        let Some(session) = self.state.session(c.session).cloned() else {
            // Ended before: ids are not reused, so nothing can be hit by mistake.
            let was_given_out = c.session.0 < self.cluster().next_session;
            return match was_given_out {
                true => Ok(Reply::DONE),
                false => Err(Reject::new(ErrorCode::NoSuchSession, format!("there never was a session {}", c.session))),
            };
        };
        self.put(Change::SessionGone(SessionKey { id: session.id }));
        self.set_session(session.node, None);
        Ok(Reply::DONE)
    }

    pub(super) fn drain_gateway(&mut self, c: &DrainGateway) -> CommandResult {
        let mut gateway = self.gateway(c.gateway)?;
        if gateway.draining != c.draining {
            gateway.draining = c.draining;
            self.put(Arc::new(gateway));
        }
        Ok(Reply::DONE)
    }

    pub(super) fn drain_bookie(&mut self, c: &DrainBookie) -> CommandResult {
        let record = self.state.bookie(c.bookie).ok_or_else(|| unknown("bookie", c.bookie.0))?;
        let mut bookie = BookieRecord::clone(record);
        let state = match (bookie.state, c.draining) {
            (BookieState::Lost, _) => {
                return Err(Reject::precondition(format!("bookie {:?} was declared lost", bookie.name)));
            }
            (_, true) => BookieState::Draining,
            (BookieState::Draining, false) => BookieState::Live,
            (state, false) => state,
        };
        if bookie.state != state {
            bookie.state = state;
            self.put(Arc::new(bookie));
        }
        Ok(Reply::DONE)
    }

    pub(super) fn lose_bookie(&mut self, c: &LoseBookie) -> CommandResult {
        let record = self.state.bookie(c.bookie).ok_or_else(|| unknown("bookie", c.bookie.0))?;
        if record.instance != c.instance && record.retired.contains(&c.instance) {
            return Ok(Reply::DONE);
        }
        let mut bookie = self.bookie(c.bookie, c.instance)?;
        if let Some(session) = bookie.session.take() {
            self.put(Change::SessionGone(SessionKey { id: session }));
        }
        bookie.state = BookieState::Lost;
        self.put(Arc::new(bookie));
        Ok(Reply::DONE)
    }

    fn new_session(&mut self, node: NodeRef, boot: BootId) -> Result<SessionId, Reject> {
        let id = SessionId(self.take_ids(|cluster| &mut cluster.next_session, 1)?);
        self.put(Arc::new(SessionRecord { id, node, boot }));
        Ok(id)
    }

    fn set_session(&mut self, node: NodeRef, session: Option<SessionId>) {
        match node {
            NodeRef::Gateway(id) => {
                if let Some(old) = self.state.gateway(id).filter(|g| g.session != session) {
                    let new = GatewayRecord { session, ..GatewayRecord::clone(old) };
                    self.put(Arc::new(new));
                }
            }
            NodeRef::Bookie(id) => {
                if let Some(old) = self.state.bookie(id).filter(|b| b.session != session) {
                    let new = BookieRecord { session, ..BookieRecord::clone(old) };
                    self.put(Arc::new(new));
                }
            }
        }
    }

    fn gateway(&self, id: GatewayId) -> Result<GatewayRecord, Reject> {
        self.state.gateway(id).map(|g| GatewayRecord::clone(g)).ok_or_else(|| unknown("gateway", id.0))
    }

    fn bookie(&self, id: BookieId, instance: InstanceId) -> Result<BookieRecord, Reject> {
        let bookie = self.state.bookie(id).ok_or_else(|| unknown("bookie", id.0))?;
        if bookie.instance != instance {
            let reason = format!("bookie {:?} has instance {}, not {instance}", bookie.name, bookie.instance);
            return Err(Reject::new(ErrorCode::WrongInstance, reason));
        }
        Ok(BookieRecord::clone(bookie))
    }

    fn check_version(&self, name: &str, version: u32) -> Result<(), Reject> {
        let cluster = self.cluster();
        if version >= cluster.version {
            return Ok(());
        }
        let reason =
            format!("the cluster writes version {}, node {name:?} knows up to {version}: upgrade it", cluster.version);
        Err(Reject::new(ErrorCode::NewerVersion, reason))
    }
}

fn unknown(what: &str, id: u64) -> Reject {
    Reject::new(ErrorCode::UnknownNode, format!("there is no {what} {id}"))
}

fn check_node(name: &str, boot: BootId) -> Result<(), Reject> {
    if name.is_empty() || name.len() > TOPIC_NAME_MAX {
        return Err(Reject::new(ErrorCode::InvalidRequest, "a node name has 1 to 249 characters"));
    }
    match boot.is_nil() {
        true => Err(Reject::new(ErrorCode::InvalidRequest, "a process needs a boot id")),
        false => Ok(()),
    }
}
