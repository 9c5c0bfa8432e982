//! A subscriber of `tracing` that listens to all tests of a binary, and keeps what holds a secret.

use std::fmt::{self, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// How each JSON web token begins: `{"` in base64.
const TOKEN: &str = "eyJ";

/// What was heard since it was made. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Secrets {
    /// Besides tokens.
    secrets: Arc<Vec<String>>,
    heard: Arc<AtomicUsize>,
    told: Arc<Mutex<Vec<String>>>,
}

impl Secrets {
    pub(crate) fn new(secrets: &[&str]) -> Self {
        Self { secrets: Arc::new(secrets.iter().map(|secret| (*secret).to_owned()).collect()), ..Self::default() }
    }

    /// Listens to the whole process, from the first call on. The secrets of later calls have no effect.
    pub(crate) fn everywhere(secrets: &[&str]) -> Self {
        static EVERYWHERE: OnceLock<Secrets> = OnceLock::new();
        let listen = || {
            let secrets = Self::new(secrets);
            tracing::subscriber::set_global_default(secrets.clone()).expect("no other listens everywhere");
            secrets
        };
        EVERYWHERE.get_or_init(listen).clone()
    }

    /// Something was told, and none of it is a secret.
    pub(crate) fn check(&self) {
        assert!(self.heard.load(Ordering::Relaxed) > 0, "nothing was told");
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(told.is_empty(), "secrets were told:\n{}", told.join("\n"));
    }

    fn hear(&self, text: String) {
        self.heard.fetch_add(1, Ordering::Relaxed);
        if text.contains(TOKEN) || self.secrets.iter().any(|secret| text.contains(secret)) {
            self.told.lock().unwrap_or_else(PoisonError::into_inner).push(text);
        }
    }
}

#[derive(Default)]
struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let _ = write!(self.0, " {}={value:?}", field.name());
    }
}

impl Subscriber for Secrets {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        let mut text = Text::default();
        attributes.record(&mut text);
        self.hear(text.0);
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, values: &Record<'_>) {
        let mut text = Text::default();
        values.record(&mut text);
        self.hear(text.0);
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut text = Text::default();
        event.record(&mut text);
        self.hear(text.0);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}
