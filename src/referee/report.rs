//! Verdicts as a table, as JUnit's XML and as JSON.

use std::fmt::{self, Write as _};

use serde_json::{Value, json};

use super::verdict::{Outcome, Verdict, WHY_CHARS_MAX};
use super::{Scenario, protocol};

/// The verdicts of a run, in the order of its scenarios.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Report {
    /// One for each scenario.
    pub verdicts: Vec<Verdict>,
}

impl Report {
    /// Whether no scenario failed, and no glue did.
    #[must_use]
    pub fn is_good(&self) -> bool {
        !self.verdicts.iter().any(Verdict::is_bad)
    }

    fn count(&self, outcome: &str) -> usize {
        self.verdicts.iter().filter(|verdict| verdict.outcome.name() == outcome).count()
    }

    /// One line that counts, such as `33 passed, 2 failed, 1 unsupported, 0 glue failed`.
    #[must_use]
    pub fn summary(&self) -> String {
        let counts = ["passed", "failed", "unsupported", "glue failed"];
        counts.map(|outcome| format!("{} {outcome}", self.count(outcome))).join(", ")
    }

    /// JUnit's XML: a test suite, a test case for each scenario. What failed has its story in the case.
    #[must_use]
    pub fn junit(&self) -> String {
        let count = |outcome| self.count(outcome);
        let seconds: f64 = self.verdicts.iter().map(|verdict| verdict.took.as_secs_f64()).sum();
        let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
        let _ = writeln!(
            xml,
            "<testsuite name=\"pulsar-native referee\" tests=\"{}\" failures=\"{}\" errors=\"{}\" skipped=\"{}\" time=\"{seconds:.3}\">",
            self.verdicts.len(),
            count("failed"),
            count("glue failed"),
            count("unsupported"),
        );
        for verdict in &self.verdicts {
            put_case(&mut xml, verdict);
        }
        xml.push_str("</testsuite>\n");
        xml
    }
}

impl fmt::Display for Report {
    /// The table, and what passed on the wire where a scenario failed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for verdict in &self.verdicts {
            let seconds = verdict.took.as_secs_f64();
            let why = verdict.outcome.why().map_or_else(String::new, |why| protocol::shown(why, WHY_CHARS_MAX));
            let row = format!("{:<11} {:<34} {seconds:>5.1} s  {why}", verdict.outcome.name(), verdict.scenario);
            writeln!(f, "{}", row.trim_end())?;
        }
        for verdict in self.verdicts.iter().filter(|verdict| verdict.is_bad()) {
            writeln!(f, "\n{}", verdict.told())?;
        }
        let client = self.verdicts.iter().map(|verdict| &*verdict.client).find(|client| !client.is_empty());
        write!(f, "\n{}: {}", client.unwrap_or("client"), self.summary())
    }
}

impl Scenario {
    /// One object, for a line of JSON.
    #[must_use]
    pub fn json(&self) -> String {
        json!({ "scenario": self.name, "must": self.must, "source": self.source }).to_string()
    }
}

impl fmt::Display for Scenario {
    /// Three lines.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n    must: {}\n    source: {}", self.name, self.must, self.source)
    }
}

impl Verdict {
    /// What the client had to do and did, the frames and the end of its stderr, in lines.
    #[must_use]
    pub fn told(&self) -> String {
        let mut told = format!("--- {}: {}\n", self.scenario, self.outcome.name());
        if let Some(scenario) = Scenario::all().find(|scenario| scenario.name == self.scenario) {
            let _ = writeln!(told, "must: {}\nsource: {}", scenario.must, scenario.source);
        }
        if let Some(why) = self.outcome.why() {
            let _ = writeln!(told, "but: {why}");
        }
        for violation in &self.violations {
            let _ = writeln!(told, "broke a rule: {violation}");
        }
        if !self.story.is_empty() {
            let _ = write!(told, "the wire (-> by the client, <- by the broker):\n{}", self.story);
        }
        if !self.stderr.is_empty() {
            let _ = write!(told, "the end of its stderr:\n{}", self.stderr);
        }
        told
    }

    /// One object, for a line of JSON.
    #[must_use]
    pub fn json(&self) -> String {
        let violations: Vec<Value> = self
            .violations
            .iter()
            .map(|violation| {
                let rule = format!("{:?}", violation.rule);
                json!({ "connection": violation.connection, "rule": rule, "detail": violation.detail })
            })
            .collect();
        let object = json!({
            "scenario": self.scenario,
            "client": self.client,
            "outcome": self.outcome.name(),
            "why": self.outcome.why(),
            "seconds": self.took.as_secs_f64(),
            "violations": violations,
            "story": self.story.lines().collect::<Vec<_>>(),
            "stderr": self.stderr.lines().collect::<Vec<_>>(),
        });
        object.to_string()
    }
}

fn put_case(xml: &mut String, verdict: &Verdict) {
    let seconds = verdict.took.as_secs_f64();
    let client = if verdict.client.is_empty() { "client" } else { &verdict.client };
    let _ = write!(
        xml,
        "  <testcase classname=\"{}\" name=\"{}\" time=\"{seconds:.3}\"",
        escaped(client),
        escaped(verdict.scenario)
    );
    let element = match &verdict.outcome {
        Outcome::Passed => {
            xml.push_str("/>\n");
            return;
        }
        Outcome::Failed { .. } => "failure",
        Outcome::Unsupported { .. } => "skipped",
        Outcome::GlueFailed { .. } => "error",
    };
    let why = escaped(verdict.outcome.why().unwrap_or_default());
    let told = if verdict.is_bad() { escaped(&verdict.told()) } else { String::new() };
    let _ = writeln!(xml, ">\n    <{element} message=\"{why}\">{told}</{element}>\n  </testcase>");
}

/// Text for XML 1.0, in an element or between double quotes. Characters that XML has none for become U+FFFD.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' | '\t' => out.push(c),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn verdict(outcome: Outcome) -> Verdict {
        Verdict {
            scenario: "lookup-slow",
            client: "a \"client\" <1.0>".to_owned(),
            outcome,
            took: Duration::from_millis(1500),
            violations: Vec::new(),
            story: "one\x1b & two".to_owned(),
            stderr: String::new(),
        }
    }

    #[test]
    fn junit_is_escaped_and_counts() {
        let failed = Outcome::Failed { why: "a < b && \"c\" \u{0}\u{ffff}".to_owned() };
        let skipped = Outcome::Unsupported { why: "none".to_owned() };
        let report = Report { verdicts: vec![verdict(failed), verdict(Outcome::Passed), verdict(skipped)] };
        let xml = report.junit();
        assert!(xml.contains("tests=\"3\" failures=\"1\" errors=\"0\" skipped=\"1\" time=\"4.500\""), "{xml}");
        assert!(xml.contains("message=\"a &lt; b &amp;&amp; &quot;c&quot; \u{fffd}\u{fffd}\""), "{xml}");
        assert!(xml.contains("classname=\"a &quot;client&quot; &lt;1.0&gt;\" name=\"lookup-slow\" time=\"1.500\"/>"));
        assert!(xml.contains("one\u{fffd} &amp; two"), "{xml}");
        assert!(!report.is_good());
        assert_eq!(report.summary(), "1 passed, 1 failed, 1 unsupported, 0 glue failed");
    }

    #[test]
    fn a_line_of_json_is_one_line() {
        let line = verdict(Outcome::GlueFailed { why: "it\nended".to_owned() }).json();
        assert!(!line.contains('\n'));
        let value: Value = serde_json::from_str(&line).expect("it is JSON");
        assert_eq!(value["outcome"], "glue failed");
        assert_eq!(value["story"][0], "one\u{1b} & two");
    }
}
