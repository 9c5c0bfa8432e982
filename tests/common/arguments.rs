//! Those of libtest's options that are in use, for binaries with a runner of their own: a filter, `--exact`, `--skip`,
//! `--test-threads`, `--list`. Others are ignored.

pub(crate) struct Arguments {
    filters: Vec<String>,
    skips: Vec<String>,
    exact: bool,
    pub(crate) list: bool,
    pub(crate) threads: usize,
}

impl Arguments {
    /// Those of this process; `threads` unless `--test-threads` says so.
    pub(crate) fn of_process(threads: usize) -> Self {
        let mut options = Self { filters: vec![], skips: vec![], exact: false, list: false, threads };
        let mut arguments = std::env::args().skip(1).flat_map(|argument| match argument.split_once('=') {
            Some((name, value)) if name.starts_with("--") => vec![name.to_owned(), value.to_owned()],
            _ => vec![argument],
        });
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().unwrap_or_else(|| panic!("{argument} takes a value"));
            match argument.as_str() {
                "--exact" => options.exact = true,
                "--list" => options.list = true,
                "--skip" => options.skips.push(value()),
                "--test-threads" => options.threads = value().parse().expect("--test-threads takes a number"),
                "--format" | "--color" | "--logfile" => drop(value()),
                option if option.starts_with('-') => {}
                _ => options.filters.push(argument),
            }
        }
        options
    }

    /// Whether the test of this name is to run.
    pub(crate) fn takes(&self, name: &str) -> bool {
        let fits = |filter: &String| if self.exact { name == filter } else { name.contains(filter.as_str()) };
        (self.filters.is_empty() || self.filters.iter().any(fits)) && !self.skips.iter().any(fits)
    }
}
