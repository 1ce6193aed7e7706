//! From a whole message to what it changes and how it is answered.

use std::os::fd::OwnedFd;

use super::{Event, Open, Owed, Session, SessionError};
use crate::user::features::{
    VHOST_USER_PROTOCOL_F_LOG_SHMFD, VHOST_USER_PROTOCOL_F_REPLY_ACK, has,
};
use crate::user::message::{
    Answer, Descriptors, Header, InflightArea, LogArea, MemoryTable, PayloadSize, Region, Request,
    SingleRegion, VERSION, VringAddress, VringFile, VringState, parse_u64,
};
use crate::user::socket::Message;

impl Session {
    pub(super) fn apply(&mut self, message: Message) -> Result<Event, SessionError> {
        let Message {
            header,
            payload,
            descriptors,
        } = message;
        let request = Request::from_id(header.request);
        let applied = match request {
            Some(request) => check_descriptors(request, &payload, descriptors.len())
                .and_then(|()| self.dispatch(request, &payload, descriptors)),
            None => Err(SessionError::Unknown {
                request: header.request,
            }),
        };
        // After SET_PROTOCOL_FEATURES has been applied: rust-vmm's front-end waits for its answer.
        let acked = header.need_reply()
            && has(
                self.state.protocol_features,
                VHOST_USER_PROTOCOL_F_REPLY_ACK,
            )
            && request.is_none_or(|request| request.answer() == Answer::Ack);
        let (event, owed) = match applied {
            Ok((event, Owed::Nothing)) if acked => (event, Owed::Ack),
            // QEMU waits for this answer without having asked for one.
            Ok((event, Owed::Nothing))
                if request == Some(Request::SetLogBase)
                    && has(
                        self.state.protocol_features,
                        VHOST_USER_PROTOCOL_F_LOG_SHMFD,
                    ) =>
            {
                (event, Owed::Reply(Vec::new()))
            }
            Ok(applied) => applied,
            Err(error) if error.is_refusal() => {
                let refusal = match request.and_then(|request| refusal_of(request, &payload)) {
                    Some(own) => own,
                    None if acked => REFUSED.to_ne_bytes().to_vec(),
                    None => return Err(error),
                };
                self.log_refusal(&error);
                (Event::Answered, Owed::Reply(refusal))
            }
            Err(error) => return Err(error),
        };
        self.open = Some(Open {
            request: header.request,
            owed,
        });
        Ok(event)
    }

    fn dispatch(
        &mut self,
        request: Request,
        payload: &[u8],
        mut descriptors: Vec<OwnedFd>,
    ) -> Result<(Event, Owed), SessionError> {
        let number = || sized(request, payload, parse_u64(payload));
        let state = || sized(request, payload, VringState::parse(payload));
        let region = || sized(request, payload, SingleRegion::parse(payload));
        let event = match request {
            Request::GetFeatures => return Ok(answer(self.offer.features)),
            Request::GetProtocolFeatures => return Ok(answer(self.offer.protocol_features)),
            Request::GetQueueNum => return Ok(answer(self.offer.queue_pairs.into())),
            Request::GetMaxMemSlots => return Ok(answer(self.offer.max_memory_slots)),
            Request::GetStatus => return Ok(answer(self.state.status.into())),
            Request::GetVringBase => {
                let ring = self.get_vring_base(state()?)?;
                return Ok((Event::StopRing(ring), Owed::Base(ring)));
            }
            Request::SetFeatures => self.set_features(number()?)?,
            Request::SetProtocolFeatures => self.set_protocol_features(number()?)?,
            Request::SetOwner => Event::Answered,
            Request::ResetOwner => self.reset_owner(),
            Request::ResetDevice => self.reset_device()?,
            Request::SetStatus => self.set_status(number()?)?,
            Request::NetSetMtu => self.set_mtu(number()?)?,
            Request::SendRarp => self.send_rarp(number()?)?,
            Request::SetBackendReqFd => self.set_backend_request_fd(one(request, descriptors)?)?,
            Request::SetMemTable => {
                let table = sized(request, payload, MemoryTable::parse(payload))?;
                self.set_mem_table(&table, descriptors)?
            }
            Request::AddMemReg => {
                let SingleRegion { region, .. } = region()?;
                self.add_mem_reg(&region, one(request, descriptors)?)?
            }
            Request::RemMemReg => self.rem_mem_reg(&region()?.region)?,
            Request::SetVringNum => self.set_vring_num(state()?)?,
            Request::SetVringAddr => {
                self.set_vring_addr(sized(request, payload, VringAddress::parse(payload))?)?
            }
            Request::SetVringBase => self.set_vring_base(state()?)?,
            Request::SetVringEnable => self.set_vring_enable(state()?)?,
            Request::SetVringKick => self.set_vring_kick(number()?, descriptors.pop())?,
            Request::SetVringCall => self.set_vring_call(number()?, descriptors.pop())?,
            Request::SetVringErr => self.set_vring_err(number()?, descriptors.pop())?,
            Request::SetLogBase => {
                let area = sized(request, payload, LogArea::parse(payload))?;
                self.set_log_base(area, one(request, descriptors)?)?
            }
            Request::GetInflightFd => {
                let area = sized(request, payload, InflightArea::parse(payload))?;
                return self.get_inflight_fd(area, payload.len());
            }
            Request::SetInflightFd => {
                let area = sized(request, payload, InflightArea::parse(payload))?;
                self.set_inflight_fd(area, one(request, descriptors)?)?
            }
            // Closed unused, as by DPDK: marks are found whether or not somebody is told of them.
            Request::SetLogFd => {
                self.require(request, VHOST_USER_PROTOCOL_F_LOG_SHMFD)?;
                Event::Answered
            }
            Request::IotlbMsg
            | Request::SetVringEndian
            | Request::GetConfig
            | Request::SetConfig
            | Request::CreateCryptoSession
            | Request::CloseCryptoSession
            | Request::PostcopyAdvise
            | Request::PostcopyListen
            | Request::PostcopyEnd
            | Request::GpuSetSocket
            | Request::VringKick
            | Request::GetSharedObject
            | Request::SetDeviceStateFd
            | Request::CheckDeviceState => return Err(not_offered(request)),
        };
        Ok((event, Owed::Nothing))
    }
}

/// The number in a negative answer; any but 0.
const REFUSED: u64 = 1;

/// The answer to a request that has one of its own and is refused, as the front-end understands
/// it. `None` = there is no such answer.
fn refusal_of(request: Request, payload: &[u8]) -> Option<Vec<u8>> {
    /// VHOST_USER_SET_DEVICE_STATE_FD: failed (bits 0-7), no file descriptor (bit 8).
    const STATE_REFUSED: u64 = 0x101;
    match request {
        // No bytes of configuration, no userfaultfd, no object: each is an error to the asker.
        Request::GetConfig | Request::PostcopyAdvise | Request::GetSharedObject => Some(Vec::new()),
        // A file of no bytes is no file.
        Request::GetInflightFd => Some(vec![0; payload.len().min(InflightArea::SIZE)]),
        Request::IotlbMsg | Request::PostcopyEnd | Request::CheckDeviceState => {
            Some(REFUSED.to_ne_bytes().to_vec())
        }
        Request::SetDeviceStateFd => Some(STATE_REFUSED.to_ne_bytes().to_vec()),
        _ => None,
    }
}

/// What can be told from the header alone, before the payload is waited for.
pub(super) fn check_header(header: &Header) -> Result<(), SessionError> {
    let request = header.request;
    if header.version() != VERSION {
        return Err(SessionError::Version {
            request,
            version: header.version(),
        });
    }
    if header.is_reply() || header.reserved_flags() != 0 {
        return Err(SessionError::Flags {
            request,
            flags: header.flags,
        });
    }
    let Some(known) = Request::from_id(request) else {
        return Ok(());
    };
    let size = usize::try_from(header.size).unwrap_or(usize::MAX);
    match known.payload_size() {
        PayloadSize::Exactly(expected) if size != expected => Err(SessionError::PayloadSize {
            request,
            size,
            expected,
        }),
        PayloadSize::MemoryTable if size < MemoryTable::HEAD => Err(SessionError::PayloadSize {
            request,
            size,
            expected: MemoryTable::HEAD,
        }),
        PayloadSize::Inflight if ![InflightArea::SIZE, InflightArea::UNPADDED].contains(&size) => {
            Err(SessionError::PayloadSize {
                request,
                size,
                expected: InflightArea::SIZE,
            })
        }
        _ => Ok(()),
    }
}

/// The number of file descriptors, which can depend on the payload.
fn check_descriptors(request: Request, payload: &[u8], count: usize) -> Result<(), SessionError> {
    let expected = match request.descriptors() {
        Descriptors::Exactly(expected) => expected,
        Descriptors::AtMostOne => count.min(1),
        // What is not a ring index is refused by who uses it.
        Descriptors::UnlessNoFd => parse_u64(payload)
            .and_then(VringFile::parse)
            .map_or(count, |file| usize::from(!file.no_fd)),
        // As many as the payload has, which may not be what it announces; then it is refused.
        Descriptors::PerRegion => payload.len().saturating_sub(MemoryTable::HEAD) / Region::SIZE,
        Descriptors::Any => count,
    };
    if count != expected {
        return Err(SessionError::DescriptorCount {
            request: request.id(),
            count,
            expected,
        });
    }
    Ok(())
}

/// What was parsed of a payload, or what size it should have had.
fn sized<T>(request: Request, payload: &[u8], parsed: Option<T>) -> Result<T, SessionError> {
    let expected = match request.payload_size() {
        PayloadSize::Exactly(expected) => expected,
        PayloadSize::MemoryTable => MemoryTable::announced(payload)
            .and_then(|count| usize::try_from(count).ok())
            .and_then(|count| count.checked_mul(Region::SIZE))
            .map_or(usize::MAX, |regions| {
                regions.saturating_add(MemoryTable::HEAD)
            }),
        PayloadSize::Inflight => InflightArea::SIZE,
        PayloadSize::Any => payload.len(),
    };
    let (request, size) = (request.id(), payload.len());
    parsed.ok_or(SessionError::PayloadSize {
        request,
        size,
        expected,
    })
}

/// The one file descriptor of a request that has exactly one.
fn one(request: Request, mut descriptors: Vec<OwnedFd>) -> Result<OwnedFd, SessionError> {
    let count = descriptors.len();
    let wrong = SessionError::DescriptorCount {
        request: request.id(),
        count,
        expected: 1,
    };
    descriptors.pop().ok_or(wrong)
}

fn answer(number: u64) -> (Event, Owed) {
    (Event::Answered, Owed::Reply(number.to_ne_bytes().to_vec()))
}

pub(super) fn not_offered(request: Request) -> SessionError {
    SessionError::NotOffered {
        request: request.id(),
    }
}
