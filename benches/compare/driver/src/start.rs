//! From the start of a process until its first message has gone through a real Pulsar and come back.

use crate::child::{self, Figures};
use crate::results::Results;
use crate::{ONCE, setting, takes_part};

/// The work's name in the results.
pub(crate) const START: &str = "start to first message";

/// How often each client starts; the median counts.
const STARTS: f64 = 9.0;

/// Runs beside the broker. All take turns on one topic, which the first turn, which does not count, makes.
pub(crate) fn section(url: &str, results: &mut Results) {
    println!("{START}");
    results.begin("start");
    let clients: Vec<&str> = ONCE.into_iter().filter(|client| takes_part(client)).collect();
    let mut runs: Vec<Vec<Figures>> = vec![Vec::new(); clients.len()];
    let count = (STARTS * setting("SCALE", 1.0)).max(1.0) as u32;
    for turn in 0..=count {
        for (client, runs) in clients.iter().zip(&mut runs) {
            let words = format!(
                "start {url} topic=persistent://public/default/start-{client} subscription=s size=100 queue=1000"
            );
            let figures = child::run(client, &words.split(' ').map(str::to_owned).collect::<Vec<_>>(), || true);
            runs.extend(figures.filter(|_| turn > 0));
        }
    }
    for (client, runs) in clients.iter().zip(runs.iter().filter(|runs| !runs.is_empty())) {
        let median = |name: &str| {
            let mut values: Vec<f64> = runs.iter().map(|figures| figures[name]).collect();
            values.sort_by(f64::total_cmp);
            values[values.len() / 2]
        };
        let figures: Figures = ["wall_ns", "cpu_ns", "rss_kib"].map(|name| (name.to_owned(), median(name))).into();
        let ms = |name: &str| figures[name] / 1e6;
        println!(
            "    {client:<21} {:>8.1} ms {:>8.1} ms CPU {:>8.0} KiB",
            ms("wall_ns"),
            ms("cpu_ns"),
            figures["rss_kib"]
        );
        results.put_all("start", START, client, &figures);
    }
    results.save();
}
