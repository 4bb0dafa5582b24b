use std::io;

use super::{DUMP_INTERRUPTED, Failure, KIND_DONE, KIND_OVERRUN, Received, Socket, Wait, messages};

/// Why an answer did not come to its end.
#[derive(Debug)]
pub(crate) enum Broken {
    /// The socket failed.
    Receive(io::Error),
    /// Messages were lost.
    Overrun,
    /// The kernel refused the request.
    Refused(Failure),
}

impl From<Broken> for io::Error {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Receive(error) => error,
            Broken::Overrun => Self::from_raw_os_error(libc::ENOBUFS),
            Broken::Refused(failure) => failure.io(),
        }
    }
}

impl Socket {
    /// Reads the answer to request `seq` to its end: a dump's closing message, or an acknowledgement. False if the
    /// kernel says that a dump is not of one state.
    pub(crate) fn answer(
        &self,
        seq: u32,
        buffer: &mut Vec<u8>,
        mut each: impl FnMut(&Received<'_>),
    ) -> Result<bool, Broken> {
        let mut consistent = true;
        loop {
            match self.recv(buffer, Wait::Block) {
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => return Err(Broken::Overrun),
                other => other.map_err(Broken::Receive)?,
            }
            for message in messages(buffer).filter(|message| message.header.seq == seq) {
                consistent &= message.header.flags & DUMP_INTERRUPTED == 0;
                if message.header.kind == KIND_OVERRUN {
                    return Err(Broken::Overrun);
                }
                match verdict(&message) {
                    None => each(&message),
                    Some(failure) if failure.errno == 0 => return Ok(consistent),
                    Some(failure) => return Err(Broken::Refused(failure)),
                }
            }
        }
    }
}

/// What a closing message says; `None` for one that carries data.
fn verdict(message: &Received<'_>) -> Option<Failure> {
    if message.header.kind != KIND_DONE {
        return message.failure();
    }
    let code = message.payload.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
    Some(Failure { errno: code.min(0).saturating_neg(), seq: message.header.seq, offset: None, text: None })
}
