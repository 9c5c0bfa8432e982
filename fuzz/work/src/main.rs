//! Work per byte: each parser reads inputs of n, 2n, 4n and 8n, and what it does for them is counted, not timed: branches that
//! are taken in this crate and its dependencies, and bytes that are allocated. Neither may grow faster than the input, but for
//! a logarithm. `scripts/fuzz-work` builds it with the counters and runs it.
//!
//! The standard library is compiled without counters; what it copies shows as allocations.

use std::alloc::{GlobalAlloc, Layout, System};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

mod inputs;

/// Twice the input may take so many times the work: a logarithm is within it, a square is four.
const GROWTH_MAX: f64 = 2.5;

/// Sizes of the inputs, in parts of which each has a few bytes.
const SIZES: [usize; 4] = [500, 1000, 2000, 4000];

static BRANCHES: AtomicU64 = AtomicU64::new(0);
static ALLOCATED: AtomicU64 = AtomicU64::new(0);

/// Called by the compiled code at each branch.
#[unsafe(no_mangle)]
extern "C" fn __sanitizer_cov_trace_pc_guard(_guard: *mut u32) {
    BRANCHES.store(BRANCHES.load(Relaxed) + 1, Relaxed);
}

#[unsafe(no_mangle)]
extern "C" fn __sanitizer_cov_trace_pc_guard_init(_start: *mut u32, _stop: *mut u32) {}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: every call is passed on to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.fetch_add(layout.size() as u64, Relaxed);
        // SAFETY: the caller's promise is that of `System`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is that of `System`.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATED.fetch_add(size as u64, Relaxed);
        // SAFETY: the caller's promise is that of `System`.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// Branches and allocated bytes of one call.
fn work(run: impl FnOnce()) -> [u64; 2] {
    let before = [BRANCHES.load(Relaxed), ALLOCATED.load(Relaxed)];
    run();
    [BRANCHES.load(Relaxed) - before[0], ALLOCATED.load(Relaxed) - before[1]]
}

fn main() -> ExitCode {
    let mut failed = false;
    println!("{:24} {:>12} {:>10} {:>12} {:>10}  growth", "parser", "branches", "per byte", "allocated", "per byte");
    for (name, parser) in inputs::PARSERS {
        let runs = SIZES.map(|size| {
            let (bytes, run) = parser(size);
            // What is made once for a thread is made now.
            let warm = parser(4).1;
            warm();
            (bytes, work(run))
        });
        let growth = |what: usize| {
            // Twice the size, each time; the last ones, where constants weigh least.
            let grown = |pair: &[(usize, [u64; 2])]| (pair[1].1[what] + 1) as f64 / (pair[0].1[what] + 1) as f64;
            grown(&runs[2..])
        };
        let (bytes, [branches, allocated]) = runs[3];
        let per_byte = |count: u64| count as f64 / bytes as f64;
        let growths = [growth(0), growth(1)];
        let is_bad = branches == 0 || growths.iter().any(|growth| *growth > GROWTH_MAX);
        failed |= is_bad;
        println!(
            "{name:24} {branches:>12} {:>10.1} {allocated:>12} {:>10.1}  {:.2} {:.2}{}",
            per_byte(branches),
            per_byte(allocated),
            growths[0],
            growths[1],
            if is_bad { "  TOO MUCH" } else { "" }
        );
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
