//! The C++ client through its C API, which the library inside the Python client's wheel has; with its best settings:
//!
//! - `send_async`, which waits by itself when the window of its producer is full; payloads that are not copied into the
//!   message; no limit of memory (its default), no statistics, no logging;
//! - batches of up to the asked count and 1 MiB, published after 1 ms at the latest;
//! - 5,000 messages in the receiver queue, acknowledgements by `acknowledge_async`, grouped as by default (1,000 or
//!   100 ms);
//! - for latencies, batches at the high rate, with the delay that suits it best, and none at the low one;
//! - the partitions of a topic in turns, which its default, one of them, is not.

#[path = "../../common/mod.rs"]
mod common;

use std::ffi::{CString, c_char, c_int, c_uint, c_ulong, c_void};
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use common::{Job, Latencies, Measurement};

/// Of the library: client, producer, consumer, message, or a configuration of one.
type Handle = *mut c_void;

type OnResult = extern "C" fn(c_int, Handle);
type OnSent = extern "C" fn(c_int, Handle, Handle);
type OnLog = extern "C" fn(c_int, *const c_char, c_int, *const c_char, Handle);

unsafe extern "C" {
    fn pulsar_authentication_token_create(token: *const c_char) -> Handle;
    fn pulsar_client_configuration_create() -> Handle;
    fn pulsar_client_configuration_set_auth(conf: Handle, authentication: Handle);
    fn pulsar_client_configuration_set_logger(conf: Handle, logger: OnLog, context: Handle);
    fn pulsar_client_configuration_set_stats_interval_in_seconds(conf: Handle, seconds: c_uint);
    fn pulsar_client_create(url: *const c_char, conf: Handle) -> Handle;
    fn pulsar_client_create_producer(client: Handle, topic: *const c_char, conf: Handle, out: *mut Handle) -> c_int;
    fn pulsar_client_subscribe_multi_topics(
        client: Handle,
        topics: *const *const c_char,
        count: c_int,
        subscription: *const c_char,
        conf: Handle,
        out: *mut Handle,
    ) -> c_int;
    fn pulsar_client_subscribe(
        client: Handle,
        topic: *const c_char,
        subscription: *const c_char,
        conf: Handle,
        out: *mut Handle,
    ) -> c_int;
    fn pulsar_producer_configuration_create() -> Handle;
    fn pulsar_producer_configuration_set_max_pending_messages(conf: Handle, count: c_int);
    fn pulsar_producer_configuration_set_block_if_queue_full(conf: Handle, on: c_int);
    fn pulsar_producer_configuration_set_partitions_routing_mode(conf: Handle, mode: c_int);
    fn pulsar_producer_configuration_set_compression_type(conf: Handle, codec: c_int);
    fn pulsar_producer_configuration_set_batching_enabled(conf: Handle, on: c_int);
    fn pulsar_producer_configuration_set_batching_max_messages(conf: Handle, count: c_uint);
    fn pulsar_producer_configuration_set_batching_max_allowed_size_in_bytes(conf: Handle, bytes: c_ulong);
    fn pulsar_producer_configuration_set_batching_max_publish_delay_ms(conf: Handle, ms: c_ulong);
    fn pulsar_producer_send_async(producer: Handle, message: Handle, sent: OnSent, context: Handle);
    fn pulsar_consumer_configuration_create() -> Handle;
    fn pulsar_consumer_configuration_set_consumer_type(conf: Handle, kind: c_int);
    fn pulsar_consumer_configuration_set_receiver_queue_size(conf: Handle, size: c_int);
    fn pulsar_consumer_set_subscription_initial_position(conf: Handle, position: c_int);
    fn pulsar_consumer_receive(consumer: Handle, out: *mut Handle) -> c_int;
    fn pulsar_consumer_acknowledge_async(consumer: Handle, message: Handle, done: Option<OnResult>, context: Handle);
    fn pulsar_consumer_close(consumer: Handle) -> c_int;
    fn pulsar_message_create() -> Handle;
    fn pulsar_message_free(message: Handle);
    fn pulsar_message_id_free(id: Handle);
    fn pulsar_message_set_allocated_content(message: Handle, data: *const u8, size: usize);
    fn pulsar_message_set_content(message: Handle, data: *const u8, size: usize);
    fn pulsar_message_get_data(message: Handle) -> *const u8;
    fn pulsar_message_get_length(message: Handle) -> u32;
}

const SHARED: c_int = 1;
const EARLIEST: c_int = 1;
const ROUND_ROBIN: c_int = 1;

/// Far above what a batch may hold by its count: the count decides.
const BATCH_BYTES_MAX: c_ulong = 1024 * 1024;

/// How often it is looked whether the last sends are stored.
const POLL: Duration = Duration::from_micros(100);

/// Sends whose callback has come.
static STORED: AtomicU64 = AtomicU64::new(0);

fn main() {
    let job = Job::from_args();
    println!(
        "{}",
        match job.workload.as_str() {
            "produce" => produce(&job),
            "consume" => consume(&job),
            "latency" => latency(&job),
            _ => start(&job),
        }
    );
    // Threads of the client that never end do not hold the process up.
    std::process::exit(0);
}

fn text(text: &str) -> CString {
    CString::new(text).expect("it has no zero")
}

extern "C" fn log(_: c_int, _: *const c_char, _: c_int, _: *const c_char, _: Handle) {}

extern "C" fn stored(result: c_int, id: Handle, _: Handle) {
    assert_eq!(result, 0, "a send");
    // SAFETY: the callback owns the id.
    unsafe { pulsar_message_id_free(id) };
    STORED.fetch_add(1, Ordering::Release);
}

fn client(job: &Job) -> Handle {
    // SAFETY: handles are of this library and of their kind, texts are copied before they end. So in all that follows.
    unsafe {
        let conf = pulsar_client_configuration_create();
        pulsar_client_configuration_set_logger(conf, log, ptr::null_mut());
        pulsar_client_configuration_set_stats_interval_in_seconds(conf, 0);
        if let Some(token) = &job.token {
            pulsar_client_configuration_set_auth(conf, pulsar_authentication_token_create(text(token).as_ptr()));
        }
        pulsar_client_create(text(&job.url).as_ptr(), conf)
    }
}

#[derive(Clone, Copy)]
struct Producer(Handle);

// SAFETY: the library's producers may be used on any thread.
unsafe impl Send for Producer {}

impl Producer {
    fn new(job: &Job, client: Handle, topic: &str, pending: usize) -> Self {
        let codec = ["", "lz4", "zlib", "zstd", "snappy"].iter().position(|codec| *codec == job.codec());
        let mut producer = ptr::null_mut();
        // SAFETY: see `client`.
        let result = unsafe {
            let conf = pulsar_producer_configuration_create();
            pulsar_producer_configuration_set_max_pending_messages(conf, pending as c_int);
            pulsar_producer_configuration_set_block_if_queue_full(conf, 1);
            pulsar_producer_configuration_set_partitions_routing_mode(conf, ROUND_ROBIN);
            pulsar_producer_configuration_set_compression_type(conf, codec.expect("a codec it has") as c_int);
            pulsar_producer_configuration_set_batching_enabled(conf, c_int::from(job.batch() > 1));
            pulsar_producer_configuration_set_batching_max_messages(conf, job.batch().max(2) as c_uint);
            pulsar_producer_configuration_set_batching_max_allowed_size_in_bytes(conf, BATCH_BYTES_MAX);
            let delay = job.batch_delay().as_millis() as c_ulong;
            pulsar_producer_configuration_set_batching_max_publish_delay_ms(conf, delay);
            pulsar_client_create_producer(client, text(topic).as_ptr(), conf, &raw mut producer)
        };
        assert_eq!(result, 0, "a producer");
        Self(producer)
    }

    fn send(self, set: unsafe extern "C" fn(Handle, *const u8, usize), payload: &[u8]) {
        // SAFETY: see `client`; the payload stays, or is copied, by what `set` is.
        unsafe {
            let message = pulsar_message_create();
            set(message, payload.as_ptr(), payload.len());
            pulsar_producer_send_async(self.0, message, stored, ptr::null_mut());
            pulsar_message_free(message);
        }
    }
}

fn produce(job: &Job) -> String {
    let client = client(job);
    let pending = (job.in_flight() / job.producers() as usize).max(1);
    let producers: Vec<Producer> = (0..job.producers())
        .map(|number| Producer::new(job, client, &format!("{}{number}", job.topic()), pending))
        .collect();
    // They stay as long as the process.
    let payloads: &[Vec<u8>] = job.payloads().leak();
    produce_some(&producers, payloads, job.warm_up());
    let measurement = Measurement::start();
    produce_some(&producers, payloads, job.messages());
    measurement.stop(job.messages())
}

fn produce_some(producers: &[Producer], payloads: &[Vec<u8>], messages: u64) {
    STORED.store(0, Ordering::Release);
    for number in 0..messages as usize {
        let payload = &payloads[number % payloads.len()];
        producers[number % producers.len()].send(pulsar_message_set_allocated_content, payload);
    }
    while STORED.load(Ordering::Acquire) < messages {
        std::thread::sleep(POLL);
    }
}

fn consumer(job: &Job, client: Handle) -> Handle {
    let topics: Vec<CString> = job.topics().iter().map(|topic| text(topic)).collect();
    let topics: Vec<*const c_char> = topics.iter().map(|topic| topic.as_ptr()).collect();
    let subscription = text(job.subscription());
    let mut consumer = ptr::null_mut();
    // SAFETY: see `client`.
    let result = unsafe {
        let conf = pulsar_consumer_configuration_create();
        pulsar_consumer_configuration_set_consumer_type(conf, SHARED);
        pulsar_consumer_configuration_set_receiver_queue_size(conf, job.queue() as c_int);
        pulsar_consumer_set_subscription_initial_position(conf, EARLIEST);
        let (name, out) = (subscription.as_ptr(), &raw mut consumer);
        match topics[..] {
            [topic] => pulsar_client_subscribe(client, topic, name, conf, out),
            _ => pulsar_client_subscribe_multi_topics(client, topics.as_ptr(), topics.len() as c_int, name, conf, out),
        }
    };
    assert_eq!(result, 0, "a consumer");
    consumer
}

/// Receives messages, hands the payload of each on, and acknowledges it.
fn take(consumer: Handle, messages: u64, mut each: impl FnMut(u64, &[u8])) {
    for number in 0..messages {
        let mut message = ptr::null_mut();
        // SAFETY: see `client`; the payload is the message's, which is freed last.
        unsafe {
            assert_eq!(pulsar_consumer_receive(consumer, &raw mut message), 0, "a message");
            let length = pulsar_message_get_length(message) as usize;
            each(number, std::slice::from_raw_parts(pulsar_message_get_data(message), length));
            pulsar_consumer_acknowledge_async(consumer, message, None, ptr::null_mut());
            pulsar_message_free(message);
        }
    }
}

fn look(_: u64, payload: &[u8]) {
    std::hint::black_box(payload);
}

fn consume(job: &Job) -> String {
    let consumer = consumer(job, client(job));
    take(consumer, job.warm_up(), look);
    let measurement = Measurement::start();
    take(consumer, job.messages(), look);
    let figures = measurement.stop(job.messages());
    // SAFETY: see `client`.
    unsafe { pulsar_consumer_close(consumer) };
    figures
}

fn latency(job: &Job) -> String {
    let client = client(job);
    let consumer = consumer(job, client);
    let producer = Producer::new(job, client, &job.topic(), 65_536);
    let pace = job.pace();
    let pacing = std::thread::spawn(move || {
        let producer = producer;
        for number in 0..pace.messages {
            producer.send(pulsar_message_set_content, &pace.wait(number));
        }
    });
    let mut latencies = Latencies::default();
    take(consumer, pace.messages, |number, payload| pace.arrived(number, payload, &mut latencies));
    pacing.join().expect("the pacing thread ends in order");
    latencies.words()
}

/// A message of a process that has just begun, there and back.
fn start(job: &Job) -> String {
    let client = client(job);
    let consumer = consumer(job, client);
    Producer::new(job, client, &job.topic(), 1000).send(pulsar_message_set_content, &job.payloads()[0]);
    take(consumer, 1, look);
    job.so_far()
}
