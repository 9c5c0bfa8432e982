//! The page, as it is in `assets/`: nothing is built, and nothing comes from elsewhere.

/// Path, type and text.
type Asset = (&'static str, &'static str, &'static str);

macro_rules! assets {
    ($( $kind:literal: $($name:literal)+; )*) => {
        &[ $( $( (concat!("/", $name), $kind, include_str!(concat!("assets/", $name))), )+ )* ]
    };
}

const ASSETS: &[Asset] = assets! {
    "text/html; charset=utf-8": "index.html";
    "text/css; charset=utf-8": "app.css";
    "image/svg+xml": "icon.svg";
    "text/javascript; charset=utf-8":
        "main.js" "dom.js" "server.js" "state.js" "words.js" "diagram.js" "row.js" "frame.js" "ledgers.js" "keys.js";
};

/// What is at a path; `/` is the page.
pub(super) fn asset(path: &str) -> Option<(&'static str, &'static str)> {
    let path = if path == "/" { "/index.html" } else { path };
    ASSETS.iter().find(|(known, ..)| *known == path).map(|(_, kind, text)| (*kind, *text))
}
