//! Archives made by hand: any name, any kind, honest or not.

/// An archive that grows entry by entry.
#[derive(Clone, Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
    modified: Option<u64>,
}

/// When entries were changed of which nothing is said, in seconds since 1970.
const MODIFIED: u64 = 1_599_764_992;

impl Archive {
    /// Starts an archive.
    pub fn new() -> Self {
        Self::default()
    }

    /// Says when the entries after this were changed, in seconds since 1970.
    #[must_use]
    pub fn at(self, modified: u64) -> Self {
        Self { modified: Some(modified), ..self }
    }

    /// Adds a directory.
    #[must_use]
    pub fn directory(self, name: &str) -> Self {
        self.entry(name, b'5', 0o755, "", &[], (0, 0))
    }

    /// Adds a file.
    #[must_use]
    pub fn file(self, name: &str, content: &[u8]) -> Self {
        self.entry(name, b'0', 0o644, "", content, (0, 0))
    }

    /// Adds a symbolic link.
    #[must_use]
    pub fn symlink(self, name: &str, target: &str) -> Self {
        self.entry(name, b'2', 0o777, target, &[], (0, 0))
    }

    /// Adds a hard link.
    #[must_use]
    pub fn link(self, name: &str, target: &str) -> Self {
        self.entry(name, b'1', 0o644, target, &[], (0, 0))
    }

    /// Adds a character device.
    #[must_use]
    pub fn device(self, name: &str, major: u32, minor: u32) -> Self {
        self.entry(name, b'3', 0o666, "", &[], (major, minor))
    }

    /// Ends the archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.bytes.resize(self.bytes.len() + 1024, 0);
        self.bytes
    }

    fn entry(
        mut self,
        name: &str,
        kind: u8,
        mode: u32,
        link: &str,
        content: &[u8],
        device: (u32, u32),
    ) -> Self {
        let mut header = [0_u8; 512];
        let mut put = |at: usize, text: &[u8]| header[at..at + text.len()].copy_from_slice(text);
        put(0, name.as_bytes());
        put(100, format!("{mode:07o}").as_bytes());
        put(108, b"0000000");
        put(116, b"0000000");
        put(124, format!("{:011o}", content.len()).as_bytes());
        put(136, format!("{:011o}", self.modified.unwrap_or(MODIFIED)).as_bytes());
        put(148, b"        ");
        put(156, &[kind]);
        put(157, link.as_bytes());
        put(257, b"ustar\x0000");
        put(329, format!("{:07o}", device.0).as_bytes());
        put(337, format!("{:07o}", device.1).as_bytes());
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.bytes.extend_from_slice(&header);
        self.bytes.extend_from_slice(content);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        self
    }
}
