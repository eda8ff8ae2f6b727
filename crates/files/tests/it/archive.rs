//! Archives as `ADD` unpacks them and as the `tar` output writes them.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};

use proptest::prelude::*;
use slipway_files::archive::{TarWriter, UnpackOptions, decompress, is_archive, unpack, write_tar};
use slipway_files::{CopyOptions, DigestCache, Ownership, Stability, Time, content_digest, copy};

use crate::support::{Tree, is_root, needs_root, options};

/// One entry of an archive made by hand.
struct Member<'m> {
    name: &'m str,
    kind: u8,
    link: &'m str,
    content: &'m [u8],
}

fn file<'m>(name: &'m str, content: &'m str) -> Member<'m> {
    Member { name, kind: b'0', link: "", content: content.as_bytes() }
}

fn link<'m>(kind: u8, name: &'m str, link: &'m str) -> Member<'m> {
    Member { name, kind, link, content: b"" }
}

/// Lays out an archive, hostile names included.
fn tar(members: &[Member<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for member in members {
        let mut header = [0_u8; 512];
        let mut put = |at: usize, text: &[u8]| header[at..at + text.len()].copy_from_slice(text);
        put(0, member.name.as_bytes());
        put(100, if member.kind == b'5' { b"0000755\0" } else { b"0000640\0" });
        let owner = if is_root() { ("0000010\0", "0000144\0") } else { ("0000000\0", "0000000\0") };
        put(108, owner.0.as_bytes());
        put(116, owner.1.as_bytes());
        put(124, format!("{:011o}\0", member.content.len()).as_bytes());
        put(136, b"00000001000\0");
        put(156, &[member.kind]);
        put(157, member.link.as_bytes());
        put(257, b"ustar\x0000");
        put(148, b"        ");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        bytes.extend_from_slice(&header);
        bytes.extend_from_slice(member.content);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
    }
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

fn own() -> UnpackOptions {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    UnpackOptions { owner: (!is_root()).then_some((uid, gid)) }
}

fn unpack_to(to: &Tree, archive: &[u8]) -> Result<(), String> {
    let error = |error: slipway_files::FilesError| {
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
        format!("{error}{cause}")
    };
    unpack(archive, Path::new("a.tar"), &to.root(), own()).map(drop).map_err(error)
}

#[test]
fn everything_an_archive_holds() {
    let to = Tree::new(&["pkg/keep=k", "pkg/latest -> keep", "pkg/gone/x"]);
    let archive = tar(&[
        link(b'5', "pkg/", ""),
        file("pkg/hello.txt", "hello"),
        link(b'2', "pkg/latest", "hello.txt"),
        link(b'1', "pkg/again", "pkg/hello.txt"),
        file("pkg/gone", "a file now"),
        file("implied/dir/f", "f"),
        link(b'6', "pkg/fifo", ""),
        file("./dot", "d"),
    ]);
    unpack_to(&to, &archive).expect("unpacked");
    assert_eq!(
        to.list(),
        [
            "dot=d",
            "implied/",
            "implied/dir/",
            "implied/dir/f=f",
            "pkg/",
            "pkg/again=hello",
            "pkg/fifo|",
            "pkg/gone=a file now",
            "pkg/hello.txt=hello",
            "pkg/keep=k",
            "pkg/latest -> hello.txt"
        ]
    );
    assert_eq!((to.mode("pkg"), to.mode("pkg/hello.txt"), to.mode("implied/dir")), (0o755, 0o640, 0o755));
    let mtime = |path: &str| fs::symlink_metadata(to.path().join(path)).expect("it exists").mtime();
    assert_eq!((mtime("pkg"), mtime("pkg/hello.txt"), mtime("pkg/latest")), (512, 512, 512));
    if is_root() {
        let metadata = fs::metadata(to.path().join("pkg/hello.txt")).expect("it exists");
        assert_eq!((metadata.uid(), metadata.gid()), (8, 100));
    }
}

#[test]
fn hostile_names_stay_inside() {
    let outside = Tree::new(&["victim=safe"]);
    let away = outside.path().display().to_string();
    let victim = format!("{away}/victim");
    let to = Tree::new(&[]);
    let archive = tar(&[
        file("../../evil", "1"),
        file("/abs", "2"),
        link(b'2', "escape", &away),
        file("escape/victim", "overwritten"),
        link(b'2', "up", "../../../../.."),
        file("up/top", "3"),
        link(b'2', "direct", &victim),
        file("direct", "replaced, not followed"),
        link(b'2', "cycle", "cycle"),
    ]);
    unpack_to(&to, &archive).expect("unpacked");
    assert_eq!(outside.list(), ["victim=safe"]);
    let list = to.list();
    for line in ["abs=2", "evil=1", "top=3", "direct=replaced, not followed"] {
        assert!(list.iter().any(|have| have == line), "{line} in {list:?}");
    }
    let error = unpack_to(&to, &tar(&[link(b'1', "stolen", &victim)]));
    // Inside the root the name exists, made by the archive above; outside nothing is linked.
    error.expect("linked inside");
    assert_eq!(fs::read(to.path().join("stolen")).expect("read"), b"overwritten");
    let error = unpack_to(&to, &tar(&[file("cycle/x", "4")])).expect_err("a loop");
    assert!(error.contains("too many symbolic links"), "{error}");
}

#[test]
fn damaged_archives_say_so() {
    let whole = tar(&[file("a", &"x".repeat(2000)), file("b", "y")]);
    let of = |bytes: &[u8]| unpack_to(&Tree::new(&[]), bytes);
    for cut in [1, 511, 700, 2000, 2600] {
        assert_eq!(of(&whole[..cut]).expect_err("cut"), "unpacking /a.tar: unexpected EOF", "cut at {cut}");
    }
    of(&whole[..whole.len() - 1024]).expect("an end without marker is an end");
    of(&whole[..whole.len() - 512]).expect("half a marker too");
    let mut bad = whole.clone();
    bad[2] ^= 1;
    assert!(of(&bad).expect_err("a wrong checksum").starts_with("unpacking /a.tar: "));
    let odd = of(&tar(&[link(b'V', "label", "")])).expect_err("no file");
    assert_eq!(odd, "unpacking /a.tar: entry `label` has a type that cannot be unpacked");
}

#[test]
fn compressions_are_known_by_content() {
    let plain = tar(&[file("f", "content")]);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(&plain).expect("written");
    let gzip = gzip.finish().expect("finished");
    let zstd = zstd::encode_all(&plain[..], 1).expect("compressed");
    let mut forms = vec![plain.clone(), gzip.clone(), zstd];
    forms.extend([run("bzip2", &plain), run("xz", &plain)].into_iter().flatten());
    for form in &forms {
        let mut read = Vec::new();
        decompress(&form[..]).expect("known").read_to_end(&mut read).expect("whole");
        assert!(read == plain && is_archive(&form[..]));
    }
    assert!(!is_archive(&b"just some text"[..]));
    assert!(!is_archive(&b""[..]));
    assert!(!is_archive(&[0; 1024][..]));
    assert!(!is_archive(&gzip[..20]));

    let from = Tree::new(&["text=t"]);
    fs::write(from.path().join("a.bin"), &gzip).expect("written");
    fs::write(from.path().join("cut.tar.gz"), &gzip[..gzip.len() - 12]).expect("written");
    let add = CopyOptions { attempt_unpack: true, ..options() };
    let to = Tree::new(&[]);
    if is_root() {
        copy(&from.context(&[]), "/*", &to.root(), "/x", &add, None).expect_err("one is cut");
        copy(&from.context(&["cut*"]), "/*", &to.root(), "/y", &add, None).expect("added");
        assert_eq!(
            to.list().into_iter().filter(|line| line.starts_with('y')).collect::<Vec<_>>(),
            ["y/", "y/f=content", "y/text=t"]
        );
        let owned = CopyOptions { ownership: Ownership::Fixed { uid: 5, gid: 6 }, ..add };
        copy(&from.context(&[]), "/a.bin", &to.root(), "/z", &owned, None).expect("added");
        assert_eq!(fs::metadata(to.path().join("z/f")).expect("it exists").uid(), 5);
        assert_eq!(fs::metadata(to.path().join("z")).expect("it exists").gid(), 6);
    }
}

#[test]
fn an_archive_that_changes_after_its_digest_was_taken_is_not_unpacked() {
    let from = Tree::new(&[]);
    fs::write(from.path().join("a.tar"), tar(&[file("f", "one")])).expect("written");
    let context = from.context(&[]);
    let digests = DigestCache::in_memory(Stability::Live);
    content_digest(&context, &[], &digests).expect("a key");
    fs::write(from.path().join("a.tar"), tar(&[file("f", "two")])).expect("written");
    let add = CopyOptions { attempt_unpack: true, ..options() };
    let to = Tree::new(&[]);
    let error = copy(&context, "/a.tar", &to.root(), "/", &add, Some(&digests)).expect_err("changed");
    assert_eq!(error.to_string(), "/a.tar changed during the build");
    assert_eq!(to.list(), [""; 0]);
}

/// Pipes bytes through a program, if there is such a program.
fn run(program: &str, input: &[u8]) -> Option<Vec<u8>> {
    let mut child = Command::new(program)
        .arg("-c")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .inspect_err(|_| println!("skipped: {program} is not there"))
        .ok()?;
    child.stdin.take().expect("piped").write_all(input).expect("written");
    Some(child.wait_with_output().expect("it ends").stdout)
}

#[test]
fn what_is_written_can_be_unpacked() {
    let long = "n".repeat(140);
    let deep = ["ddddddddddddddddddddddddd"; 12].join("/");
    let target = "t/".repeat(80);
    let from = Tree::new(&[
        "a=1",
        &format!("{long}=long"),
        &format!("{deep}/leaf=deep"),
        &format!("l -> {target}"),
        "été=é",
        "e/",
    ]);
    fs::hard_link(from.path().join("a"), from.path().join("z")).expect("linked");
    from.chmod("a", 0o4711);
    let mut archive = Vec::new();
    write_tar(&from.root(), &mut archive, Some(Time { seconds: 42, nanoseconds: 7 })).expect("written");
    let mut again = Vec::new();
    write_tar(&from.root(), &mut again, Some(Time { seconds: 42, nanoseconds: 7 })).expect("written");
    assert!(archive == again, "the same tree gives the same bytes");

    let to = Tree::new(&[]);
    unpack_to(&to, &archive).expect("unpacked");
    assert_eq!(to.list(), from.list());
    assert_eq!(to.mode("a"), 0o4711);
    let metadata = |path: &str| fs::metadata(to.path().join(path)).expect("it exists");
    assert_eq!(metadata("a").ino(), metadata("z").ino());
    assert_eq!(metadata("e").mtime(), 42);

    // GNU tar reads it too.
    let other = Tree::new(&[]);
    let mut child = Command::new("tar")
        .args(["-xf", "-", "-C"])
        .arg(other.path())
        .stdin(Stdio::piped())
        .spawn()
        .expect("tar");
    child.stdin.take().expect("piped").write_all(&archive).expect("written");
    assert!(child.wait().expect("it ends").success());
    assert_eq!(other.list(), from.list());
}

#[test]
fn trees_go_under_a_prefix() {
    let one = Tree::new(&["p=1"]);
    let two = Tree::new(&["p=2"]);
    let mut tar = TarWriter::new(Vec::new(), None);
    tar.tree(&one.root(), Path::new("linux_amd64")).expect("written");
    tar.tree(&two.root(), Path::new("linux_arm_v7")).expect("written");
    let to = Tree::new(&[]);
    unpack_to(&to, &tar.finish().expect("finished")).expect("unpacked");
    assert_eq!(to.list(), ["linux_amd64/", "linux_amd64/p=1", "linux_arm_v7/", "linux_arm_v7/p=2"]);
}

#[test]
fn what_gnu_tar_writes_can_be_unpacked() {
    let from = Tree::new(&["d/a=1", "d/l -> a", &format!("{}=x", "m".repeat(160))]);
    let sparse = fs::File::create(from.path().join("sparse")).expect("made");
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"end", 3_000_000).expect("written");
    let file = fs::File::options().write(true).open(from.path().join("d/a")).expect("opened");
    file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::new(9, 250_000_000)).expect("set");
    for format in ["gnu", "pax", "ustar"] {
        let mut command = Command::new("tar");
        command.args(["-cf", "-", "--format", format, "-C"]).arg(from.path());
        if format == "ustar" {
            command.arg("d");
        } else {
            command.args(["--sparse", "."]);
        }
        let archive = command.output().expect("tar runs").stdout;
        let to = Tree::new(&[]);
        unpack_to(&to, &archive).unwrap_or_else(|error| panic!("{format}: {error}"));
        if format != "ustar" {
            assert_eq!(to.list(), from.list(), "{format}");
            assert!(fs::metadata(to.path().join("sparse")).expect("it exists").blocks() < 1000, "{format}");
        }
        let metadata = fs::metadata(to.path().join("d/a")).expect("it exists");
        assert_eq!(
            (metadata.mtime(), metadata.mtime_nsec()),
            (9, if format == "pax" { 250_000_000 } else { 0 })
        );
    }
}

#[test]
fn devices_and_attributes() {
    if !needs_root("devices_and_attributes") {
        return;
    }
    let mut device = tar(&[link(b'3', "null", "")]);
    device[329..337].copy_from_slice(b"0000001\0");
    device[337..345].copy_from_slice(b"0000003\0");
    let sum: u32 = device[..512]
        .iter()
        .enumerate()
        .map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u32::from(*byte) })
        .sum();
    device[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    let to = Tree::new(&[]);
    unpack_to(&to, &device).expect("unpacked");
    let made = fs::metadata(to.path().join("null"));
    match made {
        Ok(metadata) => assert_eq!(metadata.rdev(), rustix::fs::makedev(1, 3)),
        Err(_) => println!("skipped: no device can be made here"),
    }
    let mut archive = Vec::new();
    write_tar(&to.root(), &mut archive, None).expect("written");
    let again = Tree::new(&[]);
    unpack_to(&again, &archive).expect("unpacked");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_bytes_are_an_archive_or_refused(mut bytes in prop::collection::vec(any::<u8>(), 0..3000), valid in any::<bool>()) {
        let to = Tree::new(&[]);
        if valid {
            // A good header followed by anything.
            let mut archive = tar(&[file("a", "x")]);
            archive.truncate(1024);
            archive.append(&mut bytes);
            bytes = archive;
        }
        let _ = unpack_to(&to, &bytes);
        is_archive(&bytes[..]);
    }
}
