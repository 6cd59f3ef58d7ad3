use esker_types::{ErrorCode, Time};

use super::api::{Described, Fetched, Refused, Request, Response};
use super::classic::Classic;
use super::consumer::Consumer;
use super::offsets::Offsets;
use super::out::{Cx, Out, Ticket};

/// One group: its members by one protocol or the other, and the offsets that it committed.
#[derive(Debug)]
pub struct Group {
    pub name: String,
    pub kind: Kind,
    pub offsets: Offsets,
    /// When the coordinator looks at it next, if nothing happens before.
    pub armed: Option<Time>,
}

#[derive(Debug)]
pub enum Kind {
    Classic(Classic),
    Consumer(Consumer),
}

impl Group {
    pub fn new(name: &str, wall: i64) -> Self {
        Self {
            name: name.to_owned(),
            kind: Kind::Classic(Classic::new(name, wall)),
            offsets: Offsets::default(),
            armed: None,
        }
    }

    /// Encoded size of all that is stored of it.
    pub fn bytes(&self) -> usize {
        let members = match &self.kind {
            Kind::Classic(classic) => classic.bytes(),
            Kind::Consumer(consumer) => consumer.bytes(),
        };
        self.name.len() + members + self.offsets.bytes
    }

    pub fn is_void(&self) -> bool {
        let members = match &self.kind {
            Kind::Classic(classic) => classic.is_void(),
            Kind::Consumer(consumer) => consumer.is_void(),
        };
        members && self.offsets.is_empty()
    }

    /// No members.
    pub fn is_empty(&self) -> bool {
        match &self.kind {
            Kind::Classic(classic) => classic.is_empty(),
            Kind::Consumer(consumer) => consumer.members.is_empty(),
        }
    }

    pub fn state(&self) -> &'static str {
        match &self.kind {
            Kind::Classic(classic) => classic.state(),
            Kind::Consumer(consumer) => consumer.state(),
        }
    }

    pub fn subscribes(&self, topic: &str) -> bool {
        match &self.kind {
            Kind::Classic(classic) => classic.subscribes(topic),
            Kind::Consumer(consumer) => consumer.subscribes(topic),
        }
    }

    pub fn deadline(&self) -> Option<Time> {
        match &self.kind {
            Kind::Classic(classic) => classic.deadline(),
            Kind::Consumer(consumer) => consumer.deadline(),
        }
    }

    pub fn start(&mut self, now: Time, config: &super::Config) {
        match &mut self.kind {
            Kind::Classic(classic) => classic.start(now, config),
            Kind::Consumer(consumer) => consumer.start(now, config),
        }
    }

    pub fn tick(&mut self, cx: &mut Cx<'_>) {
        match &mut self.kind {
            Kind::Classic(classic) => classic.tick(cx),
            Kind::Consumer(consumer) => consumer.tick(cx),
        }
        self.store(cx.out);
    }

    fn store(&mut self, out: &mut Out) {
        match &mut self.kind {
            Kind::Classic(classic) => classic.store(out),
            Kind::Consumer(consumer) => consumer.store(out),
        }
    }

    /// Deletes what the log has of the members.
    pub fn forget_members(&mut self, out: &mut Out) {
        match &mut self.kind {
            Kind::Classic(classic) if classic.stored => {
                let key = super::Key::Classic { group: self.name.clone() };
                out.put::<super::record::ClassicValue>(&key, None);
            }
            Kind::Classic(_) => {}
            Kind::Consumer(consumer) => consumer.forget(out),
        }
    }

    pub fn handle(&mut self, cx: &mut Cx<'_>, ticket: Ticket, request: Request) {
        match request {
            Request::Join(r) => match self.classic(cx) {
                Ok(classic) => classic.join(cx, ticket, r),
                Err(code) => cx.answer(ticket, Request::Join(r).refuse(code)),
            },
            Request::Sync(r) => match self.existing_classic() {
                Ok(classic) => classic.sync(cx, ticket, r),
                Err(code) => cx.answer(ticket, Response::Sync(Err(code))),
            },
            Request::ConsumerHeartbeat(r) => {
                let result = self.consumer_heartbeat(cx, &r);
                cx.answer(ticket, Response::ConsumerHeartbeat(result));
            }
            other => {
                let response = self.answer(cx, other);
                cx.answer(ticket, response);
            }
        }
        self.store(cx.out);
    }

    /// Requests that are answered at once.
    fn answer(&mut self, cx: &mut Cx<'_>, request: Request) -> Response {
        match request {
            Request::Heartbeat(r) => {
                let classic = self.existing_classic();
                Response::Heartbeat(classic.and_then(|classic| classic.heartbeat(cx, &r.who, r.generation)))
            }
            Request::Leave(r) => Response::Leave(match self.existing_classic() {
                Ok(classic) => Ok(classic.leave(cx, &r.members)),
                Err(code) => Ok(vec![Err(code); r.members.len()]),
            }),
            Request::Commit(r) => {
                let allowed = match &mut self.kind {
                    Kind::Classic(classic) => classic.check_commit(cx, &r.who, r.generation),
                    Kind::Consumer(consumer) => consumer.check_commit(&r),
                };
                Response::Commit(match allowed {
                    Ok(()) => self.offsets.commit(cx, &self.name, &r),
                    Err(code) => vec![Err(code); r.offsets.len()],
                })
            }
            Request::Fetch(r) => {
                let allowed = match (&self.kind, &r.member) {
                    (Kind::Consumer(consumer), Some((member, epoch))) => consumer.check_fetch(member, *epoch),
                    _ => Ok(()),
                };
                let fetched = allowed.map(|()| self.offsets.fetch(r.partitions.as_deref()));
                Response::Fetch(fetched.map(|found| found.into_iter().collect::<Vec<Fetched>>()))
            }
            Request::Describe { group } => Response::Describe(match &self.kind {
                Kind::Classic(classic) => classic.describe(),
                // This request knows classic groups only.
                Kind::Consumer(_) => Described::failed(&group, None),
            }),
            Request::ConsumerDescribe { .. } => Response::ConsumerDescribe(match &self.kind {
                Kind::Consumer(consumer) => Ok(consumer.describe(cx.topics)),
                Kind::Classic(_) => Err(ErrorCode::UnknownGroup),
            }),
            Request::Delete { .. } => Response::Delete(self.delete(cx)),
            Request::DeleteOffsets { partitions, .. } => Response::DeleteOffsets(self.delete_offsets(cx, &partitions)),
            Request::List(_) | Request::Join(_) | Request::Sync(_) | Request::ConsumerHeartbeat(_) => {
                request.refuse(ErrorCode::Internal)
            }
        }
    }

    /// The group as one of the classic protocol. An empty one of the other kind becomes it.
    fn classic(&mut self, cx: &mut Cx<'_>) -> Result<&mut Classic, ErrorCode> {
        if matches!(&self.kind, Kind::Consumer(consumer) if consumer.members.is_empty()) {
            self.forget_members(cx.out);
            self.kind = Kind::Classic(Classic::new(&self.name, cx.wall));
        }
        match &mut self.kind {
            Kind::Classic(classic) => Ok(classic),
            Kind::Consumer(_) => Err(ErrorCode::InconsistentGroupProtocol),
        }
    }

    fn existing_classic(&mut self) -> Result<&mut Classic, ErrorCode> {
        match &mut self.kind {
            Kind::Classic(classic) => Ok(classic),
            Kind::Consumer(_) => Err(ErrorCode::UnknownMember),
        }
    }

    fn consumer_heartbeat(
        &mut self,
        cx: &mut Cx<'_>,
        r: &super::ConsumerHeartbeat,
    ) -> Result<super::ConsumerHeartbeated, Refused> {
        match &mut self.kind {
            Kind::Consumer(consumer) => consumer.heartbeat(cx, r),
            // An empty group becomes one of the other kind with its first member, not with one that is refused.
            Kind::Classic(classic) if classic.is_empty() && r.epoch == super::JOIN_EPOCH => {
                let mut consumer = Consumer::new(&self.name, cx.wall);
                let joined = consumer.heartbeat(cx, r)?;
                self.forget_members(cx.out);
                self.kind = Kind::Consumer(consumer);
                Ok(joined)
            }
            Kind::Classic(_) => {
                let message = format!("group {:?} is used by members of the classic protocol", r.group);
                Err(Refused { code: ErrorCode::UnknownGroup, message })
            }
        }
    }
}
