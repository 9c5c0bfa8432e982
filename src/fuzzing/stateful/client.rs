//! The client's machines before a broker that lies: an embedded broker, and between the two frames that are lost, doubled, held,
//! damaged and made up.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use self::application::Application;
use self::hostile::{Mangle, any_answer};
use self::network::Network;
use super::Choices;
use super::frames::{entry, put_any_command};
use crate::error::Error;
use crate::machine::control::{ClusterId, Input};
use crate::machine::supervisor::service_url::ServiceUrl;
use crate::wire::hot::{MessageHead, put_message};

mod application;
mod consuming;
mod hostile;
mod keys;
mod network;
mod options;
mod told;

/// Steps of one script.
const STEPS_MAX: usize = 300;

/// The operation timeout and the send timeout of all that is made here.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The interval of the keep-alive.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// The longest wait between two attempts.
const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// Longer than any wait that has a deadline, and than all waits one behind the other that lead to an attach.
const LONG: Duration = Duration::from_secs(120);

/// How the next dials end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DialOutcome {
    Connected,
    Refused,
    /// Nothing comes over the connection.
    Silent,
}

/// A script of a broker that lies, an application and the clock. At its end the broker is either silent for good, and all that
/// waits has to end; or honest, and everything has to work again.
pub fn hostile_broker(data: &[u8]) {
    let mut choices = Choices::new(data);
    let mut script = Script::new(&mut choices);
    for _ in 0..STEPS_MAX {
        if choices.is_over() {
            break;
        }
        script.step(&mut choices);
        script.network.settle();
        script.check();
    }
    match choices.flag() || data.first().is_some_and(|first| first & 1 == 1) {
        true => script.end_in_silence(),
        false => script.end_in_honesty(),
    }
}

struct Script {
    network: Network,
    application: Application,
    clusters: u32,
}

impl Script {
    fn new(choices: &mut Choices<'_>) -> Self {
        let network = Network::new(choices);
        Self { network, application: Application::default(), clusters: 0 }
    }

    fn step(&mut self, choices: &mut Choices<'_>) {
        match choices.byte() {
            0..=109 => self.application.step(choices, &mut self.network),
            110..=139 => self.network.advance(choices.time()),
            140..=149 => self.end_link(choices),
            150..=154 => {
                self.network.dials = *choices.pick(&[DialOutcome::Connected, DialOutcome::Refused, DialOutcome::Silent])
            }
            155..=158 => self.switch_cluster(choices),
            159..=162 => self.network.broker.unload(application::TOPIC),
            163..=166 => self.network.swallow = choices.below(6) as u32,
            167 | 168 => self.network.stall(choices),
            169 => self.network.refused_credentials = choices.below(3) as u32,
            170..=184 => self.network.mangles.push_back(Mangle::any(choices)),
            185..=204 => self.inject(choices, put_any_command),
            205..=209 => self.inject(choices, |choices, out| out.extend_from_slice(choices.bytes())),
            210..=219 => self.inject(choices, |choices, out| {
                let mut head = MessageHead::new(choices.below(4) as u64, choices.number(), choices.number());
                head.redelivery_count = choices.below(3) as u32;
                head.ack_set = vec![choices.wide() as i64; choices.below(3)].into();
                head.consumer_epoch = choices.flag().then(|| choices.number());
                put_message(out, &head, &entry(choices));
            }),
            _ => {
                let link = self.network.some_link(choices);
                let answer = any_answer(choices, link.map_or(0, |link| self.network.last_request(link)));
                let mut out = BytesMut::new();
                answer.encode_frame(&mut out);
                self.network.deliver(link, &out);
            }
        }
    }

    fn inject(&mut self, choices: &mut Choices<'_>, put: impl FnOnce(&mut Choices<'_>, &mut BytesMut)) {
        let link = self.network.some_link(choices);
        let mut out = BytesMut::new();
        put(choices, &mut out);
        self.network.deliver(link, &out);
    }

    fn end_link(&mut self, choices: &mut Choices<'_>) {
        if let Some(link) = self.network.some_link(choices) {
            self.network.end(link, "cut by the script");
        }
    }

    fn switch_cluster(&mut self, choices: &mut Choices<'_>) {
        self.clusters += 1;
        let url =
            *choices.pick(&["pulsar://broker:6650", "pulsar://other:6650,third:6650", "pulsar+ssl://broker:6651"]);
        let url = ServiceUrl::parse(url).expect("a good URL");
        self.network.input(Input::SwitchCluster(ClusterId(self.clusters), url));
    }

    fn check(&mut self) {
        self.application.check(&self.network);
    }

    /// No byte comes any more, whatever the client does.
    fn end_in_silence(mut self) {
        self.network.be_silent();
        self.network.advance(LONG);
        self.check();
        self.application.check_all_ended();
        self.application.drop_all(self.network);
    }

    /// The broker keeps to the protocol from now on.
    fn end_in_honesty(mut self) {
        self.network.be_honest();
        self.network.advance(LONG);
        self.check();
        self.application.check_all_ended();
        self.application.check_all_work(&mut self.network);
        self.application.drop_all(self.network);
    }
}

fn lost(why: &str) -> crate::machine::control::CloseReason {
    crate::machine::control::CloseReason::Io(Error::network(why))
}
