//! A glue on the terminal: requests are printed, and what is typed are the answers.

use pulsar_native::referee::ClientUnderTest;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy, split, stdin, stdout};

/// Its first line is written for the user.
pub(super) fn client() -> ClientUnderTest {
    ClientUnderTest::task(|stream| async move {
        let (mut requests, mut answers) = split(stream);
        if answers.write_all(b"ready a person\n").await.is_err() {
            return;
        }
        let print = async {
            let (mut out, mut bytes) = (stdout(), [0; 4096]);
            while let Ok(count @ 1..) = requests.read(&mut bytes).await {
                if out.write_all(&bytes[..count]).await.is_err() || out.flush().await.is_err() {
                    return;
                }
            }
        };
        let mut typed = stdin();
        tokio::select! {
            () = print => {}
            _ = copy(&mut typed, &mut answers) => {}
        }
    })
}
