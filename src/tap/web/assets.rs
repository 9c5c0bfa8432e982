//! The page, as it is in `assets/`, and the book: nothing is built, and nothing comes from elsewhere.

/// Path, type and text.
type Asset = (&'static str, &'static str, &'static str);

macro_rules! assets {
    ($( $kind:literal: $($name:literal)+; )*) => {
        &[ $( $( (concat!("/", $name), $kind, include_str!(concat!("assets/", $name))), )+ )* ]
    };
}

const ASSETS: &[Asset] = assets! {
    "text/html; charset=utf-8": "index.html" "book.html";
    "text/css; charset=utf-8": "app.css";
    "image/svg+xml": "icon.svg";
    "text/javascript; charset=utf-8":
        "main.js" "dom.js" "server.js" "state.js" "words.js" "diagram.js" "row.js" "frame.js" "ledgers.js" "keys.js"
        "book.js";
};

macro_rules! chapters {
    ($( $name:literal )*) => {
        &[ $( (concat!("/book/", $name), "text/plain; charset=utf-8", include_str!(concat!("../../../docs/protocol/", $name))), )* ]
    };
}

/// The book as it is written; `book.js` reads it.
const CHAPTERS: &[Asset] = chapters! {
    "README.md" "SUMMARY.md" "01-frames.md" "02-handshake.md" "03-lookup.md" "04-send.md" "05-batching.md" "06-flow.md"
    "07-acknowledgement.md" "08-redelivery.md" "09-reconnect.md" "10-chunking.md" "11-encryption.md" "12-schemas.md"
    "13-transactions.md" "14-topic-watch.md" "15-migration.md" "16-write-a-client.md"
};

/// What is at a path; `/` is the page.
pub(super) fn asset(path: &str) -> Option<(&'static str, &'static str)> {
    let path = if path == "/" { "/index.html" } else { path };
    ASSETS.iter().chain(CHAPTERS).find(|(known, ..)| *known == path).map(|(_, kind, text)| (*kind, *text))
}

#[cfg(test)]
mod tests {
    use crate::rules::Rule;

    #[test]
    fn each_chapter_that_a_rule_names_is_there() {
        for rule in Rule::ALL {
            let file = rule.chapter().split('#').next().expect("a path").replace("docs/protocol/", "/book/");
            assert!(super::asset(&file).is_some(), "{file}");
        }
    }
}
