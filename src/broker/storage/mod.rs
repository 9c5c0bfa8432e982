//! What a topic keeps: its entries, and what each subscription has acknowledged of them.

pub(crate) mod cursor;
pub(crate) mod entry_info;
pub(crate) mod log;
