//! Statistics as a table for people: a row for each subscription.

use std::fmt::Write as _;

use pulsar_native::{ConnectedConsumerStatistics, SubscriptionStatistics, SubscriptionType, TopicStatistics};

const COLUMNS: [&str; 9] =
    ["TOPIC", "SUBSCRIPTION", "TYPE", "BACKLOG", "UNACKED", "DELAYED", "CONSUMERS", "ACTIVE", "BLOCKED"];

/// Whether a column is of numbers.
const IS_NUMBER: [bool; 9] = [false, false, false, true, true, true, true, false, false];

/// A row, or a line below one.
enum Line {
    Row([String; 9]),
    Text(String),
}

/// The table, without a newline at its end; with `has_consumers` a line below its subscription for each consumer.
pub(super) fn topics(topics: &[TopicStatistics], has_consumers: bool) -> String {
    let mut lines = vec![Line::Row(COLUMNS.map(str::to_owned))];
    for topic in topics {
        for (name, stats) in &topic.subscriptions {
            lines.push(Line::Row(row(&topic.topic, name, stats)));
            if has_consumers {
                lines.extend(stats.consumers.iter().map(|consumer| Line::Text(consumer_line(consumer))));
            }
        }
        if topic.subscriptions.is_empty() {
            let mut row = COLUMNS.map(|_| "-".to_owned());
            row[0] = shown(&topic.topic);
            lines.push(Line::Row(row));
        }
    }
    written(&lines)
}

fn row(topic: &str, name: &str, stats: &SubscriptionStatistics) -> [String; 9] {
    let blocked = stats.consumers.iter().filter(|consumer| consumer.blocked_consumer_on_unacked_msgs).count();
    let blocked = match (stats.blocked_subscription_on_unacked_msgs, blocked) {
        (true, _) => "subscription".to_owned(),
        (false, 0) => "no".to_owned(),
        (false, 1) => "1 consumer".to_owned(),
        (false, consumers) => format!("{consumers} consumers"),
    };
    [
        shown(topic),
        shown(name),
        stats.subscription_type.map_or("-", type_name).to_owned(),
        stats.msg_backlog.to_string(),
        stats.unacked_messages.to_string(),
        stats.msg_delayed.to_string(),
        stats.consumers.len().to_string(),
        stats.active_consumer_name.as_deref().map_or_else(|| "-".to_owned(), shown),
        blocked,
    ]
}

fn consumer_line(stats: &ConnectedConsumerStatistics) -> String {
    let mut line = format!(
        "  consumer {}: {} unacked, {} permits, {} delivered",
        shown(&stats.consumer_name),
        stats.unacked_messages,
        stats.available_permits,
        stats.msg_out_counter
    );
    if stats.blocked_consumer_on_unacked_msgs {
        line.push_str(", blocked");
    }
    for (what, text) in [("from", &stats.address), ("with", &stats.client_version), ("since", &stats.connected_since)] {
        if let Some(text) = text {
            let _ = write!(line, ", {what} {}", shown(text));
        }
    }
    line
}

/// The name of a type in the admin API.
pub(super) fn type_name(subscription_type: SubscriptionType) -> &'static str {
    match subscription_type {
        SubscriptionType::Exclusive => "Exclusive",
        SubscriptionType::Shared => "Shared",
        SubscriptionType::Failover => "Failover",
        SubscriptionType::KeyShared => "Key_Shared",
        _ => "-",
    }
}

/// A name as it can be shown: other clients may have put anything into it.
fn shown(name: &str) -> String {
    let escaped = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    name.chars().map(escaped).collect()
}

fn written(lines: &[Line]) -> String {
    let width = |column: usize| {
        let cells = lines.iter().map(|line| match line {
            Line::Row(row) => row[column].chars().count(),
            Line::Text(_) => 0,
        });
        cells.max().unwrap_or(0)
    };
    let widths: [usize; 9] = std::array::from_fn(width);
    let written = |line: &Line| match line {
        Line::Text(text) => text.clone(),
        Line::Row(row) => {
            let cell = |column: usize| match IS_NUMBER[column] {
                true => format!("{:>1$}", row[column], widths[column]),
                false => format!("{:<1$}", row[column], widths[column]),
            };
            let row: [String; 9] = std::array::from_fn(cell);
            row.join("  ").trim_end().to_owned()
        }
    };
    lines.iter().map(written).collect::<Vec<_>>().join("\n")
}
