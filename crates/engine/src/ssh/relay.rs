//! Passing on what a step may ask an agent ([protocol]): which keys there are, and to sign with one.
//!
//! [protocol]: https://datatracker.ietf.org/doc/html/draft-ietf-sshm-ssh-agent

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

const FAILURE: u8 = 5;
const REQUEST_IDENTITIES: u8 = 11;
const SIGN_REQUEST: u8 = 13;

/// The largest message; OpenSSH's agent has the same limit.
const LIMIT: u32 = 256 << 10;

/// Answers one client, until either side ends.
pub(super) async fn relay(
    client: &mut (impl AsyncRead + AsyncWrite + Unpin),
    agent: &mut (impl AsyncRead + AsyncWrite + Unpin),
) {
    while let Ok(()) = exchange(client, agent).await {}
}

/// Answers one request.
async fn exchange(
    client: &mut (impl AsyncRead + AsyncWrite + Unpin),
    agent: &mut (impl AsyncRead + AsyncWrite + Unpin),
) -> io::Result<()> {
    let request = read(client).await?;
    let allowed = matches!(request.first(), Some(&(REQUEST_IDENTITIES | SIGN_REQUEST)));
    if !allowed {
        return write(client, &[FAILURE]).await;
    }
    write(agent, &request).await?;
    let answer = read(agent).await?;
    write(client, &answer).await
}

async fn read(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let length = from.read_u32().await?;
    if length == 0 || length > LIMIT {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a message of the ssh agent has no sense"));
    }
    let mut message = vec![0; length as usize];
    from.read_exact(&mut message).await?;
    Ok(message)
}

async fn write(to: &mut (impl AsyncWrite + Unpin), message: &[u8]) -> io::Result<()> {
    let length = u32::try_from(message.len()).map_err(io::Error::other)?;
    to.write_all(&[&length.to_be_bytes(), message].concat()).await?;
    to.flush().await
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixStream;

    use super::*;

    #[tokio::test]
    async fn keys_may_be_used_and_not_changed() {
        let (mut step, mut client) = UnixStream::pair().unwrap();
        let (mut agent, mut keys) = UnixStream::pair().unwrap();
        let mut server = tokio::task::JoinSet::new();
        server.spawn(async move { relay(&mut client, &mut agent).await });
        // The agent sees the first and the last request, and none of what would change it.
        const REMOVE_ALL: u8 = 19;
        const EXTENSION: u8 = 27;
        for request in [&[REQUEST_IDENTITIES][..], &[REMOVE_ALL], &[EXTENSION, 1, 2], &[SIGN_REQUEST, 7]] {
            write(&mut step, request).await.unwrap();
            if matches!(request[0], REQUEST_IDENTITIES | SIGN_REQUEST) {
                assert_eq!(read(&mut keys).await.unwrap(), request);
                write(&mut keys, &[request[0] + 1]).await.unwrap();
                assert_eq!(read(&mut step).await.unwrap(), [request[0] + 1]);
            } else {
                assert_eq!(read(&mut step).await.unwrap(), [FAILURE]);
            }
        }
        step.write_all(&u32::MAX.to_be_bytes()).await.unwrap();
        assert_eq!(step.read(&mut [0; 8]).await.unwrap(), 0, "nonsense ends the connection");
    }
}
