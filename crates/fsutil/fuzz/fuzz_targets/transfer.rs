//! Any bytes are the packets of the other side: a receiver keeps them in its directory or refuses them, and a
//! sender gives away nothing but what it listed.
#![no_main]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use libfuzzer_sys::fuzz_target;
use prost::Message as _;
use slipway_fsutil::fstypes::Packet;
use slipway_fsutil::fstypes::packet::PacketType;
use slipway_fsutil::{PacketSink, PacketSource, ReceiveOptions, SendTree, TransferError, receive, send};

const PRECIOUS: &[u8] = b"precious";

/// Packets that come one after the other, each with its length before it.
struct Bytes<'a>(&'a [u8]);

impl PacketSource for Bytes<'_> {
    fn next(&mut self) -> Result<Option<Packet>, TransferError> {
        match self.0.is_empty() {
            true => Ok(None),
            false => Packet::decode_length_delimited(&mut self.0).map(Some).map_err(|_| TransferError::Ended),
        }
    }
}

#[derive(Default)]
struct Sent(RefCell<Vec<Packet>>);

impl PacketSink for Sent {
    fn send(&self, packet: Packet) -> Result<(), TransferError> {
        self.0.borrow_mut().push(packet);
        Ok(())
    }
}

fn make(path: &Path) {
    std::fs::create_dir(path.join("root")).unwrap();
    std::fs::write(path.join("outside"), PRECIOUS).unwrap();
    std::fs::write(path.join("root/there"), "old").unwrap();
    std::os::unix::fs::symlink("..", path.join("root/up")).unwrap();
}

fn check(path: &Path) {
    assert_eq!(std::fs::read(path.join("outside")).unwrap(), PRECIOUS, "nothing outside is written");
    assert_eq!(std::fs::read_dir(path).unwrap().count(), 2, "nothing outside is made or removed");
}

fuzz_target!(|data: &[u8]| {
    let Some((flags, packets)) = data.split_first() else { return };
    let directory = tempfile::tempdir().unwrap();
    make(directory.path());
    let root = File::open(directory.path().join("root")).unwrap().into();
    let sent = Sent::default();
    if flags & 1 == 0 {
        let mut options = ReceiveOptions { owner: Some((0, 0)), ..ReceiveOptions::default() };
        options.always = flags & 2 != 0;
        options.merge = flags & 4 != 0;
        if flags & 8 != 0 {
            options.wanted = Some(Box::new(|path: &str| path.len() % 2 == 0));
        }
        let mut packets = Bytes(packets);
        if let Ok(received) = receive(&mut packets, &sent, &root, &options) {
            options.known = received.list;
            let _ = receive(&mut packets, &sent, &root, &options);
        }
    } else {
        let tree = SendTree { prefix: String::new(), root, extra: BTreeMap::new(), epoch: None };
        let _ = send(&mut Bytes(packets), &sent, &[tree], &mut ());
        for packet in sent.0.take() {
            let is_data = packet.r#type == PacketType::PacketData as i32;
            assert!(!is_data || packet.data != PRECIOUS, "nothing outside is read");
        }
    }
    check(directory.path());
});
