//! A glue that breaks the line protocol gets the outcome `glue failed` with the reason; the client has not failed then.

use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, DuplexStream};

use super::{ClientUnderTest, Outcome, Referee, Verdict};

async fn verdict_of(client: ClientUnderTest, timeout: Duration) -> Verdict {
    let referee = Referee::new(client).scenario("lookup-slow").expect("there is such a scenario").timeout(timeout);
    referee.run(|_| {}).await.verdicts.remove(0)
}

/// A glue that writes these bytes and then waits.
fn writes(bytes: &'static [u8]) -> ClientUnderTest {
    ClientUnderTest::task(move |mut stream: DuplexStream| async move {
        let _ = stream.write_all(bytes).await;
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
}

/// A glue that answers each request with this line.
fn answers(line: &'static str) -> ClientUnderTest {
    ClientUnderTest::task(move |stream: DuplexStream| async move {
        let (reader, mut writer) = tokio::io::split(stream);
        let mut requests = BufReader::new(reader).lines();
        let _ = writer.write_all(b"ready a glue 1.0\n").await;
        while let Ok(Some(_)) = requests.next_line().await {
            if writer.write_all(format!("{line}\n").as_bytes()).await.is_err() {
                return;
            }
        }
    })
}

#[track_caller]
fn assert_glue_failed(verdict: &Verdict, says: &str) {
    let Outcome::GlueFailed { why } = &verdict.outcome else { panic!("{:?}", verdict.outcome) };
    assert!(why.contains(says), "{why}");
}

#[tokio::test]
async fn a_line_outside_the_protocol_is_quoted() {
    let patience = Duration::from_secs(5);
    assert_glue_failed(
        &verdict_of(writes(b"Connecting to broker ...\n"), patience).await,
        "`Connecting to broker ...`",
    );
    assert_glue_failed(&verdict_of(writes(b"ok\n"), patience).await, "its first line has to be `ready NAME VERSION`");
    assert_glue_failed(&verdict_of(writes(b"ready \xff\xfe\n"), patience).await, "not UTF-8");
    assert_glue_failed(&verdict_of(writes(b"\x1b[31m\n"), patience).await, "`\u{fffd}[31m`");
    assert_glue_failed(&verdict_of(answers("sent x"), patience).await, "`sent` needs the id");
    assert_glue_failed(&verdict_of(answers("ready again 1"), patience).await, "with `ready`");
}

#[tokio::test]
async fn a_line_without_an_end_is_not_read_for_ever() {
    let endless = ClientUnderTest::task(|mut stream: DuplexStream| async move {
        while stream.write_all(&[b'x'; 1024]).await.is_ok() {}
    });
    let verdict = verdict_of(endless, Duration::from_secs(5)).await;
    assert_glue_failed(&verdict, "a line of more than 16384 bytes");
}

#[tokio::test]
async fn lines_without_end_hold_the_glue_up_and_not_the_referee() {
    let endless = ClientUnderTest::task(|mut stream: DuplexStream| async move {
        let _ = stream.write_all(b"ready a glue 1.0\n").await;
        while stream.write_all(b"sent 1 error again\n").await.is_ok() {}
    });
    let verdict = verdict_of(endless, Duration::from_secs(2)).await;
    assert_eq!(verdict.outcome, Outcome::Failed { why: "not over within 2s".to_owned() });
}

#[tokio::test]
async fn a_glue_that_ends_or_says_nothing_is_named() {
    let ends = ClientUnderTest::task(|stream: DuplexStream| async move { drop(stream) });
    assert_glue_failed(&verdict_of(ends, Duration::from_secs(5)).await, "it ended when asked `start`");
    let silent = verdict_of(writes(b""), Duration::from_millis(200)).await;
    assert_glue_failed(&silent, "it has not written `ready NAME VERSION` within 200ms");
}

#[tokio::test]
async fn what_is_not_supported_counts_neither_way() {
    let verdict = verdict_of(answers("unsupported it has no URLs"), Duration::from_secs(5)).await;
    let Outcome::Unsupported { why } = &verdict.outcome else { panic!("{:?}", verdict.outcome) };
    assert!(why.contains("it has no URLs"), "{why}");
    assert!(!verdict.is_bad());
}

#[tokio::test]
async fn an_error_of_the_client_fails_it_with_the_story() {
    let verdict = verdict_of(answers("error no such host"), Duration::from_secs(5)).await;
    let Outcome::Failed { why } = &verdict.outcome else { panic!("{:?}", verdict.outcome) };
    assert!(why.ends_with("failed: no such host"), "{why}");
    assert!(verdict.story.contains("glue is asked: connect pulsar://127.0.0.1:"), "{}", verdict.story);
    assert!(verdict.told().contains("must: wait for a slow response"), "{}", verdict.told());
}

#[cfg(unix)]
#[tokio::test]
async fn a_program_that_dies_is_shown_with_its_stderr() {
    let dies = ClientUnderTest::command(["sh", "-c", "echo ready sh 1; echo 'no module named pulsar' >&2; exit 3"]);
    let verdict = verdict_of(dies, Duration::from_secs(10)).await;
    assert_glue_failed(&verdict, "exit status: 3");
    assert_eq!(verdict.stderr, "no module named pulsar\n");
    let missing = ClientUnderTest::command(["/no/such/program"]);
    assert_glue_failed(&verdict_of(missing, Duration::from_secs(5)).await, "cannot start /no/such/program");
    let nothing = ClientUnderTest::command(Vec::<String>::new());
    assert_glue_failed(&verdict_of(nothing, Duration::from_secs(5)).await, "there is no command");
}

#[test]
fn a_name_that_no_scenario_has_is_refused() {
    let error = Referee::new(writes(b"")).scenario("lookup-fast").expect_err("there is none");
    assert!(error.to_string().starts_with("there is no scenario lookup-fast, only lookup-redirect, "), "{error}");
}
