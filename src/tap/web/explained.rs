//! A frame for the page: its bytes, its fields, and which belong together.

use bytes::Bytes;
use serde_json::{Value, json};

use crate::wire::explain::explain_frame;

/// The most lines of one frame that a page is given.
const LINES_MAX: usize = 3_000;

/// The JSON of [`Explanation::to_json`](crate::wire::explain::Explanation::to_json), with at most so many lines. Unless
/// `shows_payload`, the bytes of payloads are left out: `hex` is `null`, and the value is `{"hidden": size}`.
pub(super) fn explained(frame: Vec<u8>, shows_payload: bool) -> Value {
    let explanation = explain_frame(Bytes::from(frame), 0);
    let mut json: Value = serde_json::from_str(&explanation.to_json()).unwrap_or_default();
    let Some(lines) = json["lines"].as_array_mut() else { return json };
    let left_out = lines.len().saturating_sub(LINES_MAX);
    lines.truncate(LINES_MAX);
    for line in lines {
        if !shows_payload && is_payload(line["path"].as_str().unwrap_or_default()) {
            line["hex"] = Value::Null;
            line["value"] = json!({ "hidden": line["size"] });
        }
    }
    json["left_out"] = json!(left_out);
    json
}

/// Of a message, or of a record of a batch. What cannot be read may be one too.
fn is_payload(path: &str) -> bool {
    matches!(path.rsplit('.').next(), Some("payload" | "rest"))
}
