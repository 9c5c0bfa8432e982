//! The glue of the client under test: a process, or a task with the same two streams. It gets one request at a time; the
//! results of sends come in between.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use super::ClientUnderTest;
use super::protocol::{LINE_BYTES_MAX, Line, ReceivedLine, Request, shown};
use super::verdict::Stop;

/// Lines that wait until the referee reads them; then the glue waits.
const LINES_MAX: usize = 1024;

/// Results of sends that no step has taken.
const RESULTS_MAX: usize = 10_000;

/// Bytes of the streams of a glue that is a task.
const DUPLEX_BYTES: usize = 64 * 1024;

/// What is kept of the end of a glue's stderr.
const STDERR_LINES_MAX: usize = 40;

/// How long a glue may take for its first line: an interpreter starts, a client is loaded.
const READY_TIMEOUT: Duration = Duration::from_secs(20);

/// How long a glue may take to end after `exit`.
const EXIT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the end of a killed glue's stderr is waited for.
const STDERR_TIMEOUT: Duration = Duration::from_secs(1);

/// Characters of a line of a glue in an error.
const SHOWN_CHARS_MAX: usize = 200;

type Writer = Box<dyn AsyncWrite + Send + Sync + Unpin>;
type Reader = Box<dyn AsyncRead + Send + Unpin>;
/// Ledger and entry of a message, or why it was not sent.
type SentResult = Result<(u64, u64), String>;
type Tail = Arc<Mutex<VecDeque<String>>>;

/// A glue that runs; dropped, it is killed.
pub(super) struct Glue {
    writer: Writer,
    lines: mpsc::Receiver<Result<Line, Stop>>,
    /// Results of sends that no step has taken yet.
    sent: HashMap<u64, SentResult>,
    stderr: Tail,
    /// Ends when the glue has closed its stderr.
    stderr_task: Option<JoinHandle<()>>,
    child: Option<Child>,
    /// It has answered `connect`: from then on the client is at work.
    has_connected: bool,
    has_exited: bool,
    client: String,
    note: Box<dyn Fn(String) + Send + Sync>,
    _tasks: JoinSet<()>,
}

impl Glue {
    /// Starts it.
    pub(super) fn start(client: &ClientUnderTest, note: impl Fn(String) + Send + Sync + 'static) -> Result<Self, Stop> {
        let stderr = Tail::default();
        let (mut tasks, mut stderr_task) = (JoinSet::new(), None);
        let (writer, reader, child): (Writer, Reader, _) = match client {
            ClientUnderTest::Command(command) => {
                let mut child = spawn(command)?;
                let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
                let (Some(stdin), Some(stdout)) = (stdin, stdout) else { return Err(Stop::glue("it has no streams")) };
                if let Some(errors) = child.stderr.take() {
                    stderr_task = Some(tokio::spawn(keep_tail(Arc::clone(&stderr), Box::new(errors))));
                }
                (Box::new(stdin), Box::new(stdout), Some(child))
            }
            ClientUnderTest::Task(start) => {
                let (ours, theirs) = tokio::io::duplex(DUPLEX_BYTES);
                let (reader, writer) = tokio::io::split(ours);
                tasks.spawn(start(theirs));
                (Box::new(writer), Box::new(reader), None)
            }
        };
        let (sender, lines) = mpsc::channel(LINES_MAX);
        tasks.spawn(read_lines(reader, sender));
        Ok(Self {
            writer,
            lines,
            sent: HashMap::new(),
            stderr,
            stderr_task,
            child,
            has_connected: false,
            has_exited: false,
            client: String::new(),
            note: Box::new(note),
            _tasks: tasks,
        })
    }

    /// Waits for its first line.
    pub(super) async fn ready(&mut self) -> Result<(), Stop> {
        let late = |_| Stop::glue(format!("it has not written `ready NAME VERSION` within {READY_TIMEOUT:?}"));
        match timeout(READY_TIMEOUT, self.next_line("start")).await.map_err(late)?? {
            Line::Ready { client } => self.client = client,
            other => return Err(Stop::glue(format!("its first line has to be `ready NAME VERSION`, not {other:?}"))),
        }
        Ok(())
    }

    /// What it calls the client and its version.
    pub(super) fn client(&self) -> &str {
        &self.client
    }

    /// Sends a request, and waits for the answer. An `unsupported` is a [`Stop`]; an `error` is the client's.
    pub(super) async fn ask(&mut self, request: &Request, patience: Duration) -> Result<Answer, Stop> {
        let line = request.to_string();
        (self.note)(format!("glue is asked: {}", shown(&line, SHOWN_CHARS_MAX)));
        let answered = timeout(patience, self.answer_to(&line)).await;
        let late = |_| Stop::Late(format!("no answer to `{}` within {patience:?}", shown(&line, SHOWN_CHARS_MAX)));
        let answer = answered.map_err(late)??;
        self.has_connected |= line.starts_with("connect ");
        Ok(answer)
    }

    async fn answer_to(&mut self, line: &str) -> Result<Answer, Stop> {
        // A glue that has closed its stdin may have written before why it ended.
        let _ = self.writer.write_all(format!("{line}\n").as_bytes()).await;
        let _ = self.writer.flush().await;
        loop {
            match self.next_line(line).await? {
                Line::Ok(text) => return Ok(Answer::Ok(text)),
                Line::Nothing => return Ok(Answer::Nothing),
                Line::Error(text) => return Ok(Answer::Error(text)),
                Line::Unsupported(text) => return Err(Stop::Unsupported(format!("{}: {text}", shown(line, 60)))),
                Line::Sent { id, result } => self.keep(id, result)?,
                Line::Ready { .. } => return Err(Stop::glue(format!("it answered `{line}` with `ready`"))),
            }
        }
    }

    fn keep(&mut self, id: u64, result: SentResult) -> Result<(), Stop> {
        self.sent.insert(id, result);
        if self.sent.len() > RESULTS_MAX {
            return Err(Stop::glue(format!("it answered for more than {RESULTS_MAX} sends without a request")));
        }
        Ok(())
    }

    /// The result of a send, or `None` if there is none within `patience`.
    pub(super) async fn sent(&mut self, id: u64, patience: Duration) -> Result<Option<SentResult>, Stop> {
        let wait = async {
            loop {
                if let Some(result) = self.sent.remove(&id) {
                    return Ok(result);
                }
                match self.next_line("a result").await? {
                    Line::Sent { id, result } => self.keep(id, result)?,
                    other => return Err(Stop::glue(format!("without a request it wrote {other:?}"))),
                }
            }
        };
        timeout(patience, wait).await.ok().transpose()
    }

    /// The most memory that its process has had so far, bytes; `None` where the system does not show it.
    pub(super) fn peak_memory(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.as_ref()?.id()?)).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        Some(line.trim().trim_end_matches(" kB").parse::<u64>().ok()? * 1024)
    }

    /// Ends it in order, if it has not ended yet.
    pub(super) async fn exit(&mut self) -> Result<(), Stop> {
        if std::mem::replace(&mut self.has_exited, true) {
            return Ok(());
        }
        self.ask(&Request::new("exit"), EXIT_TIMEOUT).await?;
        let Some(child) = &mut self.child else { return Ok(()) };
        match timeout(EXIT_TIMEOUT, child.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(Stop::glue(format!("after `exit` it ended with {status}"))),
            Ok(Err(error)) => Err(Stop::glue(format!("after `exit`: {error}"))),
            Err(_) => Err(Stop::glue(format!("it has not ended within {EXIT_TIMEOUT:?} of `exit`"))),
        }
    }

    /// The last lines that it wrote to stderr. It is killed.
    pub(super) async fn into_stderr(mut self) -> String {
        if let Some(child) = &mut self.child {
            let _ = child.start_kill();
        }
        if let Some(task) = self.stderr_task.take() {
            // A process that it left behind may hold the stream.
            let _ = timeout(STDERR_TIMEOUT, task).await;
        }
        let tail = self.stderr.lock().unwrap_or_else(PoisonError::into_inner);
        tail.iter().map(|line| format!("{line}\n")).collect()
    }

    /// # Cancel safety
    /// Dropped while it waits, it has read nothing.
    async fn next_line(&mut self, asked: &str) -> Result<Line, Stop> {
        let Some(line) = self.lines.recv().await else { return Err(self.ended(asked).await) };
        if let Ok(line) = &line {
            (self.note)(format!("glue says: {}", shown(&format!("{line:?}"), SHOWN_CHARS_MAX)));
        }
        line
    }

    /// It closed its stdout. A process that ends by a signal or with an error while the client is at work has crashed; its stderr shows whether
    /// in the client or in the glue.
    async fn ended(&mut self, asked: &str) -> Stop {
        let status = match &mut self.child {
            Some(child) => timeout(Duration::from_secs(1), child.wait()).await.ok().and_then(Result::ok),
            None => None,
        };
        let asked = shown(asked, SHOWN_CHARS_MAX);
        match status {
            Some(status) if !status.success() && self.has_connected => {
                Stop::failed(format!("its process ended, {status}, when asked `{asked}`"))
            }
            Some(status) => Stop::glue(format!("it ended, {status}, when asked `{asked}`")),
            None => Stop::glue(format!("it ended when asked `{asked}`")),
        }
    }
}

/// What a glue answered; its `unsupported` is a [`Stop`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    Ok(String),
    Nothing,
    Error(String),
}

impl Answer {
    /// The message of a `receive` that gave it this name; `None` if there was none.
    pub(super) fn into_message(self, name: &str) -> Result<Option<ReceivedLine>, Stop> {
        match self {
            Self::Ok(text) => ReceivedLine::parse(name, &text).map(Some).map_err(Stop::glue),
            Self::Nothing => Ok(None),
            Self::Error(error) => Err(Stop::failed(format!("receive failed: {error}"))),
        }
    }
}

fn spawn(command: &[String]) -> Result<Child, Stop> {
    let Some((program, arguments)) = command.split_first() else { return Err(Stop::glue("there is no command")) };
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command.spawn().map_err(|error| Stop::glue(format!("cannot start {program}: {error}")))
}

async fn read_lines(reader: Reader, lines: mpsc::Sender<Result<Line, Stop>>) {
    let mut reader = BufReader::new(reader);
    loop {
        let line = match read_line(&mut reader).await {
            Ok(None) => return,
            Ok(Some(line)) => line,
            Err(error) => {
                let _ = lines.send(Err(Stop::glue(error.to_string()))).await;
                return;
            }
        };
        let parsed = Line::parse(&line);
        let stop = parsed.map_err(|lacks| Stop::glue(format!("it wrote `{}`: {lacks}", shown(&line, SHOWN_CHARS_MAX))));
        if lines.send(stop).await.is_err() {
            return;
        }
    }
}

/// The next line without its end; `None` at the end of the stream.
async fn read_line(reader: &mut BufReader<Reader>) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    let limit = LINE_BYTES_MAX as u64 + 1;
    reader.take(limit).read_until(b'\n', &mut line).await?;
    if line.is_empty() {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
    } else if line.len() > LINE_BYTES_MAX {
        return Err(io::Error::other(format!("it wrote a line of more than {LINE_BYTES_MAX} bytes")));
    }
    let text = String::from_utf8(line).map_err(|_| io::Error::other("it wrote a line that is not UTF-8"))?;
    Ok(Some(text))
}

async fn keep_tail(tail: Tail, errors: Reader) {
    let mut errors = BufReader::new(errors);
    let mut line = Vec::new();
    loop {
        line.clear();
        let limit = LINE_BYTES_MAX as u64;
        match (&mut errors).take(limit).read_until(b'\n', &mut line).await {
            Ok(1..) => {}
            _ => return,
        }
        let text = shown(String::from_utf8_lossy(&line).trim_end(), SHOWN_CHARS_MAX);
        let mut tail = tail.lock().unwrap_or_else(PoisonError::into_inner);
        if tail.len() == STDERR_LINES_MAX {
            tail.pop_front();
        }
        tail.push_back(text);
    }
}
