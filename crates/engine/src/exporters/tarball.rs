//! A tar archive of a few plain files, for OCI layouts and `docker load` archives.
//!
//! Names are short and ours, sizes may be large: ustar headers, with the size in base-256 from 8 GiB on.
//! Owners are 0 and times are 0, so the archive depends on its content alone.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::PathBuf;

const BLOCK: usize = 512;

/// Writes entries to `out`.
pub(crate) struct Tarball<W> {
    out: W,
}

impl<W: Write> Tarball<W> {
    pub(crate) fn new(out: W) -> Self {
        Self { out }
    }

    /// Adds a directory.
    pub(crate) fn directory(&mut self, name: &str) -> io::Result<()> {
        self.out.write_all(&header(&format!("{name}/"), 0, 0o755, b'5')?)
    }

    /// Adds a file with the given content.
    pub(crate) fn file(&mut self, name: &str, content: &[u8]) -> io::Result<()> {
        self.stream(name, content.len() as u64, content)
    }

    /// Adds a file of `size` bytes from a reader; a reader with fewer or more is an error.
    pub(crate) fn stream(&mut self, name: &str, size: u64, content: impl Read) -> io::Result<()> {
        self.out.write_all(&header(name, size, 0o644, b'0')?)?;
        let copied = io::copy(&mut content.take(size), &mut self.out)?;
        if copied != size {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("`{name}` has {copied} bytes instead of {size}"),
            ));
        }
        let padding = (BLOCK - (size % BLOCK as u64) as usize) % BLOCK;
        self.out.write_all(&[0; BLOCK][..padding])
    }

    /// Ends the archive and returns what it was written to.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.out.write_all(&[0; 2 * BLOCK])?;
        self.out.flush()?;
        Ok(self.out)
    }
}

/// Writes archives one after the other as one: their ends are left out but for the last.
pub fn join_tars(archives: &[PathBuf], mut out: impl Write) -> io::Result<()> {
    for path in archives {
        let mut archive = io::BufReader::new(File::open(path)?);
        let mut header = [0; BLOCK];
        loop {
            archive.read_exact(&mut header)?;
            if header == [0; BLOCK] {
                break;
            }
            out.write_all(&header)?;
            let blocks = size_of(&header)?.div_ceil(BLOCK as u64) * BLOCK as u64;
            if io::copy(&mut archive.by_ref().take(blocks), &mut out)? != blocks {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
    out.write_all(&[0; 2 * BLOCK])?;
    out.flush()
}

/// Reads how many bytes follow a header.
fn size_of(header: &[u8; BLOCK]) -> io::Result<u64> {
    let field = &header[124..136];
    if field[0] & 0x80 != 0 {
        return Ok(field[4..].iter().fold(0, |size, byte| size << 8 | u64::from(*byte)));
    }
    let text = field.iter().copied().filter(u8::is_ascii_digit);
    let digits: String = text.map(char::from).collect();
    u64::from_str_radix(&format!("0{digits}"), 8)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "a bad size in a tar header"))
}

fn header(name: &str, size: u64, mode: u32, kind: u8) -> io::Result<[u8; BLOCK]> {
    let mut block = [0u8; BLOCK];
    if name.len() > 100 {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("`{name}` is too long for a tar header"),
        ));
    }
    block[..name.len()].copy_from_slice(name.as_bytes());
    octal(&mut block[100..108], u64::from(mode));
    octal(&mut block[108..116], 0);
    octal(&mut block[116..124], 0);
    if size < 1 << 33 {
        octal(&mut block[124..136], size);
    } else {
        block[124] = 0x80;
        block[128..136].copy_from_slice(&size.to_be_bytes());
    }
    octal(&mut block[136..148], 0);
    block[148..156].fill(b' ');
    block[156] = kind;
    block[257..265].copy_from_slice(b"ustar\x0000");
    let sum: u64 = block.iter().map(|b| u64::from(*b)).sum();
    octal(&mut block[148..155], sum);
    Ok(block)
}

/// Writes a number in octal, zero-padded, with a NUL at the end.
fn octal(field: &mut [u8], value: u64) {
    let width = field.len() - 1;
    let text = format!("{value:0width$o}");
    field[..width].copy_from_slice(text.as_bytes());
    field[width] = 0;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gnu_tar_reads_it() {
        let mut tarball = Tarball::new(Vec::new());
        tarball.directory("blobs").unwrap();
        tarball.file("blobs/a", b"hello").unwrap();
        let archive = tarball.finish().unwrap();
        let mut child = std::process::Command::new("tar")
            .args(["-tvf", "-"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(&archive).unwrap();
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success());
        assert!(
            text.contains("drwxr-xr-x 0/0") && text.contains(" 5 ") && text.contains("blobs/a"),
            "{text}"
        );
    }

    #[test]
    fn archives_are_joined() {
        let directory = tempfile::tempdir().unwrap();
        let paths = ["a", "b"].map(|name| {
            let mut tarball = Tarball::new(File::create(directory.path().join(name)).unwrap());
            tarball.file(name, &vec![b'x'; 700]).unwrap();
            tarball.finish().unwrap();
            directory.path().join(name)
        });
        let mut joined = Vec::new();
        join_tars(&paths, &mut joined).unwrap();
        let mut expected = Tarball::new(Vec::new());
        expected.file("a", &vec![b'x'; 700]).unwrap();
        expected.file("b", &vec![b'x'; 700]).unwrap();
        assert_eq!(joined, expected.finish().unwrap());
    }

    #[test]
    fn a_short_reader_is_an_error() {
        let mut tarball = Tarball::new(Vec::new());
        assert!(tarball.stream("x", 10, &b"short"[..]).is_err());
    }
}
