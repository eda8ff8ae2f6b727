//! Passing on what a step may ask an agent ([protocol]): which keys there are, and to sign with one.
//!
//! [protocol]: https://datatracker.ietf.org/doc/html/draft-ietf-sshm-ssh-agent

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;

const FAILURE: u8 = 5;
const REQUEST_IDENTITIES: u8 = 11;
const SIGN_REQUEST: u8 = 13;

/// The largest message; OpenSSH's agent has the same limit.
const LIMIT: u32 = 256 << 10;

/// Answers one client on a thread of its own, until either side ends.
pub(super) fn start(mut client: UnixStream, mut agent: UnixStream) -> io::Result<()> {
    std::thread::Builder::new()
        .name("ssh-agent".to_owned())
        .spawn(move || while let Ok(()) = exchange(&mut client, &mut agent) {})?;
    Ok(())
}

/// Answers one request.
fn exchange(client: &mut (impl Read + Write), agent: &mut (impl Read + Write)) -> io::Result<()> {
    let request = read(client)?;
    let allowed = matches!(request.first(), Some(&(REQUEST_IDENTITIES | SIGN_REQUEST)));
    if !allowed {
        return write(client, &[FAILURE]);
    }
    write(agent, &request)?;
    let answer = read(agent)?;
    write(client, &answer)
}

fn read(from: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length);
    if length == 0 || length > LIMIT {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a message of the ssh agent has no sense"));
    }
    let mut message = vec![0; length as usize];
    from.read_exact(&mut message)?;
    Ok(message)
}

fn write(to: &mut impl Write, message: &[u8]) -> io::Result<()> {
    let length = u32::try_from(message.len()).map_err(io::Error::other)?;
    to.write_all(&[&length.to_be_bytes(), message].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_may_be_used_and_not_changed() {
        let (mut step, client) = UnixStream::pair().unwrap();
        let (agent, mut keys) = UnixStream::pair().unwrap();
        start(client, agent).unwrap();
        // The agent sees the first and the last request, and none of what would change it.
        const REMOVE_ALL: u8 = 19;
        const EXTENSION: u8 = 27;
        for request in [&[REQUEST_IDENTITIES][..], &[REMOVE_ALL], &[EXTENSION, 1, 2], &[SIGN_REQUEST, 7]] {
            write(&mut step, request).unwrap();
            if matches!(request[0], REQUEST_IDENTITIES | SIGN_REQUEST) {
                assert_eq!(read(&mut keys).unwrap(), request);
                write(&mut keys, &[request[0] + 1]).unwrap();
                assert_eq!(read(&mut step).unwrap(), [request[0] + 1]);
            } else {
                assert_eq!(read(&mut step).unwrap(), [FAILURE]);
            }
        }
        step.write_all(&u32::MAX.to_be_bytes()).unwrap();
        assert_eq!(step.read(&mut [0; 8]).unwrap(), 0, "nonsense ends the connection");
    }
}
