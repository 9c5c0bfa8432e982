//! The figures: lines of `section, work, client, name, value`, kept in a file so that sections may run apart.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use crate::child::Figures;

type Key = (String, String, String, String);

/// The figures of all sections.
pub(crate) struct Results {
    path: PathBuf,
    lines: BTreeMap<Key, String>,
}

impl Results {
    /// What the file holds so far.
    pub(crate) fn open(path: PathBuf) -> Self {
        let text = fs::read_to_string(&path).unwrap_or_default();
        let line = |line: &str| {
            let mut fields = line.split('\t').map(str::to_owned);
            let key = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
            Some((key, fields.next()?))
        };
        Self { path, lines: text.lines().filter_map(line).collect() }
    }

    /// Forgets a section, and notes when, of which version and on what machine it is measured anew.
    pub(crate) fn begin(&mut self, section: &str) {
        self.lines.retain(|key, _| key.0 != section);
        for (name, variable) in
            [("date", "COMPARE_DATE"), ("version", "COMPARE_VERSION"), ("machine", "COMPARE_MACHINE")]
        {
            let value = std::env::var(variable).unwrap_or_else(|_| "unknown".to_owned());
            self.put(section, "run", "", name, value);
        }
    }

    pub(crate) fn put(&mut self, section: &str, work: &str, client: &str, name: &str, value: String) {
        let key = [section, work, client, name].map(str::to_owned);
        self.lines.insert(key.into(), value);
    }

    pub(crate) fn put_all(&mut self, section: &str, work: &str, client: &str, figures: &Figures) {
        for (name, value) in figures {
            self.put(section, work, client, name, value.to_string());
        }
    }

    pub(crate) fn text(&self, section: &str, work: &str, client: &str, name: &str) -> Option<&str> {
        self.lines.get(&[section, work, client, name].map(str::to_owned).into()).map(String::as_str)
    }

    pub(crate) fn number(&self, section: &str, work: &str, client: &str, name: &str) -> Option<f64> {
        self.text(section, work, client, name)?.parse().ok()
    }

    /// Keeps all for later runs.
    pub(crate) fn save(&self) {
        let line = |((a, b, c, d), value): (&Key, &String)| format!("{a}\t{b}\t{c}\t{d}\t{value}\n");
        let text: String = self.lines.iter().map(line).collect();
        fs::write(&self.path, text).expect("docs/ can be written to");
    }
}
