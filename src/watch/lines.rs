//! The lines of a watch.

use std::io::{self, BufRead};
use std::pin::Pin;

use futures::{AsyncBufRead, AsyncBufReadExt};

/// A line longer than this is no object: etcd takes 1.5 MB.
const LONGEST: usize = 64 << 20;

/// Reads line after line into one buffer.
pub(super) struct Lines {
    stream: Pin<Box<dyn AsyncBufRead + Send>>,
    line: Vec<u8>,
    /// Whether there is nothing behind the last line yet.
    drained: bool,
}

impl Lines {
    pub fn new(stream: impl AsyncBufRead + Send + 'static) -> Self {
        Self { stream: Box::pin(stream), line: Vec::new(), drained: true }
    }

    /// Whether everything that has arrived so far has been read, as far as can be told without asking the connection.
    pub const fn drained(&self) -> bool {
        self.drained
    }

    /// The next line, `None` at the end. A last line without an end was cut off and does not count.
    pub async fn next(&mut self) -> io::Result<Option<&[u8]>> {
        self.line.clear();
        loop {
            let available = self.stream.fill_buf().await?;
            if available.is_empty() {
                return Ok(None);
            }
            let used = (&mut &*available).skip_until(b'\n')?;
            let ends = available[..used].ends_with(b"\n");
            self.line.extend_from_slice(&available[..used]);
            self.drained = used == available.len();
            self.stream.as_mut().consume(used);
            if ends && self.line.trim_ascii().is_empty() {
                self.line.clear();
            } else if ends {
                return Ok(Some(&self.line));
            } else if self.line.len() > LONGEST {
                return Err(io::Error::other("a line of the watch does not end"));
            }
        }
    }
}
